"""Plugins: what others write against. `Component` and `hookimpl` are all that most plugins need."""

from nashtune.plugins.component import API, KINDS, Component, Problem
from nashtune.plugins.hookspecs import hookimpl
from nashtune.plugins.manager import PluginRecord, Plugins, load_plugins
from nashtune.plugins.registry import Registered, Registry

__all__ = [
    "API",
    "KINDS",
    "Component",
    "PluginRecord",
    "Plugins",
    "Problem",
    "Registered",
    "Registry",
    "hookimpl",
    "load_plugins",
]
