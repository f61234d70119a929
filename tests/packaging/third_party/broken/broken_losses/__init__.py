"""A plugin whose own dependency is missing."""

import a_package_that_is_not_installed

VERSION = a_package_that_is_not_installed.__version__
