from __future__ import annotations

import sys

import pytest

from nashtune.plugins.source import Imported, Unreadable, find_module, read_module
from nashtune.plugins.static import class_info


def test_finding_a_module_imports_no_parent(site):
    site.file("outer_pkg/__init__.py", "raise RuntimeError('imported')")
    site.file("outer_pkg/inner/__init__.py", "raise RuntimeError('imported')")
    site.file("outer_pkg/inner/leaf.py", "x = 1")
    spec = find_module("outer_pkg.inner.leaf")
    assert spec is not None and spec.origin == str(site.folder / "outer_pkg/inner/leaf.py")
    assert "outer_pkg" not in sys.modules


def test_a_module_that_does_not_exist_is_none_and_its_child_too():
    assert find_module("not_there_at_all") is None
    assert find_module("not_there_at_all.child") is None
    assert find_module("nashtune.errors.child") is None  # a module is not a package


def test_a_folder_without_init_is_found(site):
    site.file("spaced_ns/leaf.py", "x = 1")
    assert find_module("spaced_ns.leaf") is not None


def test_a_folder_without_init_inside_another_is_left_to_the_import_system(site):
    site.file("spaced_ns/inner/leaf.py", "class C: ...")
    assert find_module("spaced_ns.inner.leaf") is None
    assert class_info("spaced_ns.inner.leaf:C").file.endswith("leaf.py")


def test_names_are_bound_to_what_the_text_says(site):
    site.file(
        "named_pkg/sub/mod.py",
        """
        from __future__ import annotations
        from typing import TYPE_CHECKING
        import a.b
        import a.b as ab
        from .. import up
        from .near import thing as other
        from stars import *
        if TYPE_CHECKING:
            from hidden import Seen
        try:
            from fast import f
        except ImportError:
            from slow import f
        limit: int = 3
        class C: ...
        """,
    )
    site.file("named_pkg/__init__.py", "")
    site.file("named_pkg/sub/__init__.py", "")
    source = read_module("named_pkg.sub.mod")
    assert source.names["a"] == Imported("a", "")
    assert source.names["ab"] == Imported("a.b", "")
    assert source.names["up"] == Imported("named_pkg", "up")
    assert source.names["other"] == Imported("named_pkg.sub.near", "thing")
    assert source.names["Seen"] == Imported("hidden", "Seen")
    assert "f" not in source.names and source.unclear == {"f"}
    assert source.stars == ("stars",)
    assert {"limit", "C"} <= set(source.names)


def test_what_deletes_or_captures_leaves_a_name_open(site):
    site.file(
        "open_mod.py",
        """
        class Cut: rows = ("pairs",)
        class Kept: rows = ("pairs",)
        delattr(Cut, "rows")
        class Rest: ...
        match {}:
            case {**Rest}: ...
        """,
    )
    source = read_module("open_mod")
    assert source.unclear == {"Cut", "Rest"} and "Kept" in source.names


def test_a_package_reads_its_relative_imports_from_itself(site):
    site.file("relative_pkg/__init__.py", "from .leaf import X")
    assert read_module("relative_pkg").names["X"] == Imported("relative_pkg.leaf", "X")


def test_a_compiled_module_has_no_text():
    with pytest.raises(Unreadable):
        read_module("_bisect" if find_module("_bisect") else "sys")


def test_broken_text_is_a_syntax_error_with_its_place(site):
    site.file("broken_text.py", "x = (\n")
    with pytest.raises(SyntaxError) as caught:
        read_module("broken_text")
    assert str(site.folder) in str(caught.value.filename)


def test_text_that_is_not_utf8_is_a_syntax_error(site):
    (site.folder / "latin.py").write_bytes(b"x = '\xe9'\n")
    with pytest.raises(SyntaxError):
        read_module("latin")


def test_a_changed_file_is_read_anew(site):
    site.file("changing.py", "x = 1")
    first = read_module("changing")
    site.file("changing.py", "y = 1")
    assert set(first.names) == {"x"} and set(read_module("changing").names) == {"y"}
