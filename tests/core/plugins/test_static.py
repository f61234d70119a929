from __future__ import annotations

import sys

import pytest

from nashtune.errors import InputError
from nashtune.plugins.classinfo import Argument
from nashtune.plugins.static import class_info

HEAVY = "raise RuntimeError('imported')\n"

LOSS = '''
    raise RuntimeError("imported")  # stands for `import torch`
    from typing import Literal
    from jsonargparse.typing import PositiveFloat
    from nashtune.interfaces import Loss

    class AcmeLoss(Loss):
        """Hinge on the margin.

        More of it.

        Args:
            tau: Where the hinge is, in nats,
                > 0 (paper: 0.5).
            reduction: `sum` or `mean`.
        """

        anchors = ("ref", "aux")
        uses_p_chosen: bool = True

        def __init__(self, tau: PositiveFloat, *, reduction: Literal["sum", "mean"] = "sum", extra=-2) -> None:
            self.tau = tau
'''


def test_a_class_is_read_without_importing_its_module(site):
    path = site.file("acme_static/loss.py", LOSS)
    site.file("acme_static/__init__.py", HEAVY)
    info = class_info("acme_static.loss:AcmeLoss")
    assert not {"acme_static", "acme_static.loss"} & set(sys.modules)
    assert (info.module, info.name, info.summary) == ("acme_static.loss", "AcmeLoss", "Hinge on the margin.")
    assert "More of it." in info.doc
    assert info.arguments == (
        Argument("tau", "PositiveFloat", True, None, "Where the hinge is, in nats, > 0 (paper: 0.5)."),
        Argument("reduction", "Literal['sum', 'mean']", False, "sum", "`sum` or `mean`."),
        Argument("extra", "", False, -2, ""),
    )
    assert (info.file, info.line) == (str(path), 6)
    assert info.where == f"{path}:6" and info.target == "acme_static.loss:AcmeLoss"


def test_attributes_are_the_interfaces_with_the_classs_own_on_top(site):
    site.file("acme_static.py", LOSS)
    attributes = class_info("acme_static.AcmeLoss").attributes
    assert attributes["anchors"] == ("ref", "aux")
    assert (attributes["uses_p_chosen"], attributes["uses_beta"], attributes["rows"]) == (True, True, "pairs")


def test_it_knows_which_interface_is_implemented(site):
    site.file("acme_static.py", LOSS)
    info = class_info("acme_static:AcmeLoss")
    assert info.bases == ("nashtune.interfaces.loss:Loss",)
    assert info.implements("loss") and not info.implements("kl")


def test_inheritance_follows_pythons_order(site):
    site.file(
        "diamond.py",
        """
        raise RuntimeError("imported")
        import torch.nn as nn
        from nashtune.interfaces import Loss

        class Base(Loss):
            uses_beta = False
            rows = "pairs"

            def __init__(self, *, alpha: float = 1.0) -> None: ...

        class Left(Base, nn.Module): ...

        class Right(Base):
            rows = "examples"

        class Bottom(Left, Right):
            '''Both.

            Args:
                alpha: Said again.
            '''
        """,
    )
    info = class_info("diamond:Bottom")
    assert info.attributes["rows"] == "examples"  # depth first would find Base's "pairs"
    assert info.attributes["uses_beta"] is False
    assert [(one.name, one.default, one.doc) for one in info.arguments] == [("alpha", 1.0, "Said again.")]
    assert info.bases[:2] == ("diamond:Left", "diamond:Right")


def test_keyword_arguments_that_are_passed_on_are_those_of_the_next_class(site):
    site.file(
        "passing.py",
        """
        raise RuntimeError("imported")
        from nashtune.interfaces import Loss

        class Base(Loss):
            '''Base.

            Args:
                tau: From above.
                beta: Replaced below.
            '''

            def __init__(self, *, tau: float, beta: float = 1.0) -> None: ...

        class Passing(Base):
            def __init__(self, *, beta: int = 2, **kwargs: object) -> None:
                super().__init__(beta=beta, **kwargs)
        """,
    )
    arguments = class_info("passing:Passing").arguments
    assert [(one.name, one.annotation, one.default) for one in arguments] == [
        ("beta", "int", 2),
        ("tau", "float", None),
    ]
    assert arguments[1].doc == "From above."


def test_a_name_that_a_package_re_exports_is_followed_to_its_file(site):
    site.file("front/__init__.py", "from .back import AcmeLoss\n" + HEAVY)
    site.file("front/back.py", LOSS)
    info = class_info("front.AcmeLoss")
    assert info.target == "front.back:AcmeLoss"
    assert "front" not in sys.modules


@pytest.mark.parametrize(
    "body",
    [
        "    @property\n    def anchors(self): return ()",
        "    def __init__(self):\n        self.anchors = ()",
        "    def uses_beta(self): return True",
    ],
)
def test_an_attribute_that_only_an_object_would_have_is_an_error_at_its_line(site, body):
    site.file("late.py", f"from nashtune.interfaces import Loss\nclass Late(Loss):\n{body}\n")
    with pytest.raises(
        InputError, match=r"late.py:\d: Late\.\w+ is read without making an object; set it in the class"
    ):
        class_info("late:Late")


def test_what_the_text_does_not_say_is_inspected_by_importing(site):
    site.file(
        "computed.py",
        """
        import math
        from nashtune.interfaces import Loss

        class Computed(Loss):
            '''Computed.

            Args:
                limit: In nats.
            '''

            anchors = tuple("ref aux".split())

            def __init__(self, *, limit: float = math.pi / 2) -> None: ...
            def __call__(self, batch, step): ...
        """,
    )
    info = class_info("computed:Computed")
    assert "computed" in sys.modules
    assert info.attributes["anchors"] == ("ref", "aux") and info.attributes["uses_beta"] is True
    [limit] = info.arguments
    assert (limit.name, limit.annotation, limit.required, limit.doc) == ("limit", "float", False, "In nats.")
    assert limit.default == pytest.approx(1.5707963)
    assert info.implements("loss") and info.file.endswith("computed.py") and info.line == 4


def test_a_dataclass_is_inspected(site):
    site.file(
        "dataclassed.py",
        """
        from dataclasses import dataclass
        from nashtune.interfaces import Pairing

        @dataclass
        class Best(Pairing):
            '''Best.

            Args:
                gap: At least, >= 0.
            '''

            gap: float = 0.5

            def pairs(self, scores): return []
        """,
    )
    [gap] = class_info("dataclassed:Best").arguments
    assert (gap.name, gap.annotation, gap.default, gap.doc) == ("gap", "float", 0.5, "At least, >= 0.")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("not_there_at_all.loss:Loss", "cannot be imported: ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("nashtune.interfaces.loss:Lose", "has no class 'Lose'; did you mean 'Loss'"),
        ("nashtune.errors:nearest", "is a function, not a class"),
        ("just_a_word", "package.module:Class"),
        ("a b:C", "package.module:Class"),
    ],
)
def test_a_place_without_a_class_is_an_input_error(target, said):
    with pytest.raises(InputError) as caught:
        class_info(target)
    assert said in str(caught.value)


def test_a_module_that_is_not_python_is_an_input_error(site):
    site.file("garbled.py", "class Loss(:\n")
    with pytest.raises(InputError, match=r"garbled:Loss cannot be read: .*garbled\.py"):
        class_info("garbled:Loss")


def test_a_base_class_that_is_not_there_is_said_with_the_import_error(site):
    site.file("orphan.py", "from not_there_at_all import Base\nclass Orphan(Base): ...\n")
    with pytest.raises(InputError, match="orphan:Orphan cannot be imported: ModuleNotFoundError"):
        class_info("orphan:Orphan")


PARENT = """
    from nashtune.interfaces import Loss

    class Parent(Loss):
        anchors = ("ref", "aux")

        def __init__(self, *, tau: float = 2.0) -> None: ...
        def __call__(self, batch, step): ...

    class Other: ...

    def same(cls):
        return cls
"""

INDIRECT = {
    "a call": "from parent_mod import *\nclass Child(same(Parent)): ...\n",
    "a star of a star": "from parent_again import *\nclass Child(Parent): ...\n",
    "a condition": "from parent_mod import Other, Parent\nclass Child(Parent if Parent else Other): ...\n",
    "a list": "from parent_mod import Parent\nBASES = (Parent,)\nclass Child(*BASES): ...\n",
    "a fallback": "try:\n    from json import Gone as P\nexcept ImportError:\n    from parent_mod import Parent as P\n"
    "class Child(P): ...\n",
    "a block": "import contextlib\nwith contextlib.suppress(OSError):\n    from parent_mod import Parent\n"
    "class Child(Parent): ...\n",
    "its own name": "from parent_mod import Parent as Child\nclass Child(Child): ...\n",
    "a name bound twice": "from parent_mod import Other as P\nfrom parent_mod import Parent as P\n"
    "class Child(P): ...\n",
    "a decorator": "from parent_mod import Other, Parent\ndef swap(cls):\n    return Parent\n"
    "@swap\nclass Child(Other): ...\n",
    "exec": "from parent_mod import Other as P\nexec('from parent_mod import Parent as P')\nclass Child(P): ...\n",
    "several targets": "from parent_mod import Parent\nChild = Alias = Parent\n",
}


@pytest.mark.parametrize("how", INDIRECT)
def test_a_base_by_whatever_way_hands_on_what_it_has(site, how):
    site.file("parent_mod.py", PARENT)
    site.file("parent_again.py", "from parent_mod import *\n")
    site.file("child_mod.py", INDIRECT[how])
    info = class_info("child_mod:Child")
    assert [(one.name, one.default) for one in info.arguments] == [("tau", 2.0)]
    assert info.attributes["anchors"] == ("ref", "aux") and info.implements("loss")


def test_classes_that_lead_back_to_themselves_are_imported(site):
    site.file("ring.py", "class A(B): ...\nclass B(A): ...\n")
    with pytest.raises(InputError, match="ring:A cannot be imported: NameError"):
        class_info("ring:A")


@pytest.mark.parametrize(
    "body",
    [
        "    anchors = same = ('ref', 'aux')",
        "    anchors, same = ('ref', 'aux'), 1",
        "    if True:\n        anchors = ('ref', 'aux')",
        "    anchors = ('ref',)\n    anchors += ('aux',)",
        "    ...\nSet.anchors = ('ref', 'aux')",
        "    ...\nsetattr(Set, 'anchors', ('ref', 'aux'))",
        "    locals()['anchors'] = ('ref', 'aux')",
        "    from anchors_mod import anchors",
        "    anchors = ('ref', f'{\"auxiliary\":.3}')",
    ],
)
def test_an_attribute_by_whatever_way_is_read(site, body):
    site.file("anchors_mod.py", "anchors = ('ref', 'aux')\n")
    site.file("set_mod.py", f"from nashtune.interfaces import Loss\nclass Set(Loss):\n{body}\n")
    assert class_info("set_mod:Set").attributes["anchors"] == ("ref", "aux")


@pytest.mark.parametrize("how", ["of='aux'", "metaclass=Meta", ""])
def test_what_makes_a_class_may_give_it_attributes(site, how):
    site.file(
        "made_mod.py",
        f"""
        from nashtune.interfaces import Loss

        class Meta(type(Loss)):
            def __new__(cls, name, bases, body):
                return super().__new__(cls, name, bases, {{**body, "anchors": ("ref", "aux")}})

        class Base(Loss{", metaclass=Meta" if "Meta" in how else ""}):
            {"..." if "Meta" in how else "def __init_subclass__(cls, of='aux'): cls.anchors = ('ref', of)"}

        class Made(Base{", " + how if how else ""}): ...
        """,
    )
    assert class_info("made_mod:Made").attributes["anchors"] == ("ref", "aux")


def test_a_constructor_that_is_no_function_of_the_body_is_inspected(site):
    site.file("made.py", "def init(self, tau: float = 2.0): ...\nclass Made:\n    __init__ = init\n")
    assert [one.name for one in class_info("made:Made").arguments] == ["tau"]
