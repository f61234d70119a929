"""Ways in which a module can hold a loss that works: target and files, by what is special about it."""

from __future__ import annotations

CALL = "\n    def __call__(self, batch, step): ...\n"
LOSS = f"from nashtune.interfaces import Loss\nclass Mine(Loss):{CALL}"
BASE = LOSS.replace("Mine", "Base")

_SHAPES: dict[str, tuple[str, dict[str, list[str]]]] = {
    "relative": (
        "shape_1.a.b:Mine",
        {
            "shape_1/__init__.py": [],
            "shape_1/a/__init__.py": [],
            "shape_1/a/b.py": ["from ..base import Base\n", "class Mine(Base): pass\n"],
            "shape_1/base.py": [BASE],
        },
    ),
    "relative reexport from init": (
        "shape_2:Mine",
        {"shape_2/__init__.py": ["from .impl import Mine\n"], "shape_2/impl.py": [LOSS]},
    ),
    "from . import mod; mod.Base": (
        "shape_3.x:Mine",
        {
            "shape_3/__init__.py": [],
            "shape_3/b.py": [BASE],
            "shape_3/x.py": ["from . import b\n", "class Mine(b.Base): pass\n"],
        },
    ),
    "star of star base": (
        "shape_4.x:Mine",
        {
            "shape_4/__init__.py": [],
            "shape_4/all.py": ["from nashtune.interfaces import *\n"],
            "shape_4/common.py": ["from shape_4.all import *\n"],
            "shape_4/x.py": ["from shape_4.common import *\n", "class Mine(Loss):", CALL],
        },
    ),
    "star of star class": (
        "shape_5:Mine",
        {"shape_5/__init__.py": ["from .a import *\n"], "shape_5/a.py": ["from .b import *\n"], "shape_5/b.py": [LOSS]},
    ),
    "with block class": (
        "shape_6:Mine",
        {
            "shape_6.py": [
                "import contextlib\n",
                "with contextlib.suppress(ValueError):\n",
                "    from nashtune.interfaces import Loss\n",
                "    class Mine(Loss):\n",
                "        def __call__(self, batch, step): ...\n",
            ]
        },
    ),
    "with block import of class": (
        "shape_7:Mine",
        {
            "shape_7/__init__.py": [
                "import warnings\n",
                "with warnings.catch_warnings():\n",
                "    from .impl import Mine\n",
            ],
            "shape_7/impl.py": [LOSS],
        },
    ),
    "with block import of base": (
        "shape_8:Mine",
        {
            "shape_8.py": [
                "import warnings\n",
                "with warnings.catch_warnings():\n",
                '    warnings.simplefilter("ignore")\n',
                "    ",
                LOSS,
            ]
        },
    ),
    "__getattr__ by unpacking": (
        "shape_9:Mine",
        {
            "shape_9/__init__.py": [
                "def _attach():\n",
                "    def g(name):\n",
                "        import importlib\n",
                '        return getattr(importlib.import_module("shape_9.impl"), name)\n',
                '    return g, (lambda: []), ["Mine"]\n',
                "__getattr__, __dir__, __all__ = _attach()\n",
            ],
            "shape_9/impl.py": [LOSS],
        },
    ),
    "factory call base": (
        "shape_10:Mine",
        {
            "shape_10.py": [
                "from nashtune.interfaces import Loss\n",
                "def logged(c): return c\n",
                "class Mine(logged(Loss)):",
                CALL,
            ]
        },
    ),
    "starred bases": (
        "shape_11:Mine",
        {"shape_11.py": ["from nashtune.interfaces import Loss\n", "BASES=(Loss,)\n", "class Mine(*BASES):", CALL]},
    ),
    "conditional base expr": (
        "shape_12:Mine",
        {
            "shape_12.py": [
                "import sys\n",
                "from nashtune.interfaces import Loss\n",
                "class Mine(Loss if sys else object):",
                CALL,
            ]
        },
    ),
    "double assignment": (
        "shape_13:Mine",
        {
            "shape_13.py": [
                "from nashtune.interfaces import Loss\n",
                "class Other(Loss):",
                CALL,
                "Mine = Alias = Other\n",
            ]
        },
    ),
    "tuple assignment": (
        "shape_14:Mine",
        {
            "shape_14.py": [
                "from nashtune.interfaces import Loss\n",
                "def make():\n",
                "    class A(Loss):\n",
                "            def __call__(self, batch, step): ...\n",
                "    return A, A\n",
                "Mine, Theirs = make()\n",
            ]
        },
    ),
    "globals() in a loop": (
        "shape_15:Mine",
        {
            "shape_15.py": [
                "from nashtune.interfaces import Loss\n",
                'for name in ["Mine"]:\n',
                '    globals()[name] = type(name, (Loss,), {"__call__": lambda *given: None})\n',
            ]
        },
    ),
    "type() factory": (
        "shape_16:Mine",
        {
            "shape_16.py": [
                "from nashtune.interfaces import Loss\n",
                'Mine = type("Mine",(Loss,),{"__call__":lambda s,b,t:None})\n',
            ]
        },
    ),
    "TYPE_CHECKING base first": (
        "shape_17:Mine",
        {
            "shape_17.py": [
                "from typing import TYPE_CHECKING\n",
                "if TYPE_CHECKING:\n",
                "    from acme_absent import Loss\n",
                "else:\n",
                "    ",
                LOSS,
            ]
        },
    ),
    "try except fallback base": (
        "shape_18:Mine",
        {
            "shape_18.py": [
                "try:\n",
                "    from acme_absent import Base\n",
                "except ImportError:\n",
                "    from nashtune.interfaces import Loss as Base\n",
                "class Mine(Base):",
                CALL,
            ]
        },
    ),
    "try absent base defined in except": (
        "shape_19:Mine",
        {
            "shape_19.py": [
                "try:\n",
                "    from json import NoSuch as Base\n",
                "except ImportError:\n",
                "    from nashtune.interfaces import Loss as Base\n",
                "class Mine(Base):",
                CALL,
            ]
        },
    ),
    "namespace package": ("shape_ns_20.sub.x:Mine", {"shape_ns_20/sub/x.py": [LOSS]}),
    "namespace inside ns, own import": (
        "shape_ns_21.sub.x:Mine",
        {
            "shape_ns_21/sub/x.py": ["from shape_ns_21.sub.base import Base\n", "class Mine(Base): pass\n"],
            "shape_ns_21/sub/base.py": [BASE],
        },
    ),
    "generic": (
        "shape_22:Mine",
        {
            "shape_22.py": [
                "from typing import Generic, TypeVar\n",
                "from nashtune.interfaces import Loss\n",
                'T=TypeVar("T")\n',
                "class Base(Loss, Generic[T]):",
                CALL,
                "class Mine(Base[int]): pass\n",
            ]
        },
    ),
    "import as dotted": (
        "shape_23:Mine",
        {"shape_23.py": ["import nashtune.interfaces.loss as l\n", "class Mine(l.Loss):", CALL]},
    ),
    "import dotted": (
        "shape_24:Mine",
        {"shape_24.py": ["import nashtune.interfaces.loss\n", "class Mine(nashtune.interfaces.loss.Loss):", CALL]},
    ),
    "__path__ with another folder": (
        "shape_25.loss:Mine",
        {
            "shape_25/__init__.py": ["import os\n", '__path__.append(os.path.join(os.path.dirname(__file__),"src"))\n'],
            "shape_25/src/loss.py": [LOSS],
        },
    ),
    "put into sys.modules": (
        "shape_26.loss:Mine",
        {
            "shape_26/__init__.py": ["import sys, shape_26._loss as m\n", 'sys.modules["shape_26.loss"]=m\n'],
            "shape_26/_loss.py": [LOSS],
        },
    ),
    "circular own imports": (
        "shape_27.a:Mine",
        {
            "shape_27/__init__.py": ["from . import a\n"],
            "shape_27/a.py": ["import shape_27.b\n", LOSS],
            "shape_27/b.py": ["import shape_27.a\n"],
        },
    ),
    "ABC.register": (
        "shape_28:Mine",
        {"shape_28.py": ["from nashtune.interfaces import Loss\n", "@Loss.register\n", "class Mine:", CALL]},
    ),
    "conditional base of a plugin": (
        "shape_29:Mine",
        {
            "shape_29.py": [
                "from nashtune_plugins.dpo import *\n",
                "import nashtune_plugins.dpo as d\n",
                'class Mine(d.DPOLoss if hasattr(d,"DPOLoss") else d.DPO): pass\n',
            ]
        },
    ),
    "base module has getattr": (
        "shape_30.x:Mine",
        {
            "shape_30/__init__.py": [],
            "shape_30/lazy.py": [
                "def __getattr__(n):\n",
                "    import nashtune.interfaces as i\n",
                "    return getattr(i,n)\n",
            ],
            "shape_30/x.py": ["from shape_30.lazy import Loss\n", "class Mine(Loss):", CALL],
        },
    ),
    "own top import under suppress": (
        "shape_31.x:Mine",
        {
            "shape_31/__init__.py": [],
            "shape_31/x.py": [
                "import contextlib\n",
                "with contextlib.suppress(ImportError):\n",
                "    import nope_absent\n",
                LOSS,
            ],
        },
    ),
    "optional import in a module of its own": (
        "shape_32.x:Mine",
        {
            "shape_32/__init__.py": [],
            "shape_32/x.py": ["from shape_32.util import u\n", LOSS],
            "shape_32/util.py": ["try:\n", "    import nope\n", "except ImportError:\n", "    nope=None\n", "u=1\n"],
        },
    ),
    "match stmt": (
        "shape_33:Mine",
        {
            "shape_33.py": [
                "import sys\n",
                "match sys.platform:\n",
                '    case "win32":\n',
                "        from nope import Mine\n",
                "    case _:\n",
                "        from shape_b_33 import Mine\n",
            ],
            "shape_b_33.py": [LOSS],
        },
    ),
    "import after sys.path insert": (
        "shape_34:Mine",
        {
            "shape_34/__init__.py": [
                "import os,sys\n",
                'sys.path.insert(0, os.path.join(os.path.dirname(__file__),"vendor"))\n',
                "from shape_base_34 import Base\n",
                "class Mine(Base): pass\n",
            ],
            "shape_34/vendor/shape_base_34.py": [BASE],
        },
    ),
    "exec": ("shape_35:Mine", {"shape_35.py": [f"exec({LOSS!r})"]}),
    "alias of an alias": (
        "shape_36:Mine",
        {"shape_36.py": ["import nashtune.interfaces as i\n", "L = i.Loss\n", "B = L\n", "class Mine(B):", CALL]},
    ),
    "walrus": (
        "shape_37:Mine",
        {
            "shape_37.py": [
                "from nashtune.interfaces import Loss\n",
                '(Mine := type("Mine",(Loss,),{"__call__":lambda s,b,t:None}))\n',
            ]
        },
    ),
    "bound to itself": ("shape_38:Mine", {"shape_38.py": [LOSS, "Mine = Mine\n"]}),
    "named as its base": (
        "shape_39:Mine",
        {
            "shape_39.py": [
                "from nashtune.interfaces import Loss\n",
                "class Loss(Loss):",
                CALL,
                "class Mine(Loss): pass\n",
            ]
        },
    ),
    "import of its own namespace package": (
        "shape_40.x:Mine",
        {"shape_40/x.py": ["import shape_40.y\n", LOSS], "shape_40/y.py": []},
    ),
    "import star with __all__ getattr": (
        "shape_41:Mine",
        {
            "shape_41.py": ["from shape_b_41 import *\n", "class Mine(Loss):", CALL],
            "shape_b_41.py": [
                '__all__=["Loss"]\n',
                "def __getattr__(n):\n",
                "    import nashtune.interfaces as i\n",
                "    return getattr(i,n)\n",
            ],
        },
    ),
    "getattr as base": (
        "shape_42:Mine",
        {
            "shape_42.py": [
                "from functools import reduce\n",
                "import nashtune.interfaces as i\n",
                'class Mine(getattr(i,"Loss")):',
                CALL,
            ]
        },
    ),
    "if True": (
        "shape_43.x:Mine",
        {
            "shape_43/__init__.py": [],
            "shape_43/x.py": ["if True:\n", "    from .base import Base\n", "class Mine(Base): pass\n"],
            "shape_43/base.py": [BASE],
        },
    ),
    "try/else": (
        "shape_44:Mine",
        {
            "shape_44.py": [
                "try:\n",
                "    import json\n",
                "except ImportError:\n",
                "    raise\n",
                "else:\n",
                "    from shape_b_44 import Mine\n",
            ],
            "shape_b_44.py": [LOSS],
        },
    ),
    "try/finally": (
        "shape_45:Mine",
        {
            "shape_45.py": ["try:\n", "    x=1\n", "finally:\n", "    from shape_b_45 import Mine\n"],
            "shape_b_45.py": [LOSS],
        },
    ),
    "while": (
        "shape_46:Mine",
        {"shape_46.py": ["while True:\n", "    from shape_b_46 import Mine\n", "    break\n"], "shape_b_46.py": [LOSS]},
    ),
}
SHAPES = {
    what: (target, {file: "".join(parts) for file, parts in files.items()}) for what, (target, files) in _SHAPES.items()
}
