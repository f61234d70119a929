from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import nashtune
from nashtune.errors import InputError, Interrupted
from nashtune.plugins import importing
from nashtune.plugins.manager import PluginRecord, Plugins, discover, load_plugins

GOOD = """
    from nashtune.plugins import Component, hookimpl

    @hookimpl
    def nashtune_components():
        return [Component("loss", "{name}", "{name}_pkg:Loss")]
"""


def found(**environ: str) -> Plugins:
    return discover(entry_points(group="nashtune"), environ)


def record(plugins: Plugins, name: str) -> PluginRecord:
    [one] = [one for one in plugins.records if one.name == name]
    return one


def test_core_comes_first_then_the_built_in_set_then_others_by_name(site):
    for name in ("zeta", "alpha"):
        site.dist(f"{name}-dist", **{name: f"{name}_pkg"})
        site.file(f"{name}_pkg.py", GOOD.format(name=name))
    assert [one.name for one in found().records] == ["nashtune", "builtin", "alpha", "zeta"]


def test_a_third_party_component_is_known_by_name_with_its_version(site):
    site.dist("acme-losses", "2.1", acme="acme_pkg")
    site.file("acme_pkg.py", GOOD.format(name="acme"))
    plugins = found()
    one = record(plugins, "acme")
    assert (one.dist, one.version, one.status, one.reason) == ("acme-losses", "2.1", "ok", "")
    entry = plugins.registry.get("loss", "acme")
    assert (entry.plugin, entry.version, entry.component.target) == ("acme", "2.1", "acme_pkg:Loss")


def test_the_core_gives_its_general_components_under_its_own_name():
    plugins = found()
    entry = plugins.registry.get("kl", "fixed")
    assert (entry.plugin, entry.version) == ("nashtune", nashtune.__version__)


def test_spec_folders_are_listed_with_their_plugin(site):
    site.dist("acme", acme="acme_pkg")
    site.file("acme_specs/one.yaml", "loss: acme")
    site.file(
        "acme_pkg.py",
        """
        from pathlib import Path
        from nashtune.plugins import hookimpl

        @hookimpl
        def nashtune_spec_dirs():
            return [Path(__file__).parent / "acme_specs"]
        """,
    )
    assert found().spec_dirs()[-1] == ("acme", site.folder / "acme_specs")


def test_names_of_nashtunes_own_specs_cannot_be_taken_over(site):
    site.dist("acme", acme="acme_pkg")
    for file in ("dpo", "mine", "runs/demo", "runs/mine"):
        site.file(f"acme_specs/{file}.yaml", "loss: dpo")
    site.file(
        "acme_pkg.py",
        """
        from pathlib import Path
        from nashtune.plugins import hookimpl

        @hookimpl
        def nashtune_spec_dirs():
            return [Path(__file__).parent / "acme_specs"]
        """,
    )
    plugins = found()
    one = record(plugins, "acme")
    assert one.status == "refused"
    assert f"nashtune has a spec 'dpo' itself, so that {site.folder / 'acme_specs' / 'dpo.yaml'} is known" in one.reason
    assert "nashtune has a run file 'demo' itself" in one.reason and "mine" not in one.reason
    named = [(file.folder, file.name) for plugin, file in plugins.spec_files() if plugin == "acme"]
    assert sorted(named) == [("", "mine"), ("runs", "mine")]
    assert [plugin for plugin, file in plugins.spec_files() if (file.folder, file.name) == ("", "dpo")] == ["builtin"]


def test_a_folder_of_specs_that_cannot_be_read_fails_alone(site):
    site.dist("acme", acme="acme_pkg")
    site.file(
        "acme_pkg.py",
        """
        from nashtune.plugins import hookimpl

        class Away:
            name = "away"
            def is_dir(self):
                return True
            def __truediv__(self, other):
                return self
            def iterdir(self):
                raise PermissionError(13, "Permission denied")

        @hookimpl
        def nashtune_spec_dirs():
            return [Away()]
        """,
    )
    one = record(found(), "acme")
    assert (one.status, one.spec_files) == ("failed", []) and "Permission denied" in one.reason
    assert found().registry.get("loss", "dpo")


def test_an_entry_point_that_is_no_module_fails_alone(site):
    site.dist("evil", evil="my-plugin")
    one = record(found(), "evil")
    assert (one.status, one.module) == ("failed", "")
    assert one.reason == "its entry point 'my-plugin' is no module, as in `evil = package.module`"
    assert record(found(NASHTUNE_BLOCK="evil"), "evil").status == "blocked"
    assert found().registry.get("loss", "dpo")


ANSWER = """
import itertools
from pathlib import Path
from nashtune.plugins import Component, Problem, hookimpl

class Evil(Exception):
    def __str__(self):
        raise RuntimeError("no text")
    __repr__ = __str__

class Loud(Component):
    def __getattribute__(self, name):
        raise RuntimeError("loud")

@hookimpl
def nashtune_components():
    return {}
"""
FOLDERS = """
@hookimpl
def nashtune_spec_dirs():
    return itertools.repeat(Path(__file__).parent)
"""
BROKEN = {
    "an import that fails": ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
    "an exit at import": ("raise SystemExit(3)", "SystemExit: 3"),
    "what is no exception": ("class Bye(BaseException): ...\nraise Bye('bye')", "Bye: bye"),
    "a syntax error": ("def f(:", "SyntaxError"),
    "a hook that raises": (
        """
        from nashtune.plugins import hookimpl

        @hookimpl
        def nashtune_components():
            raise RuntimeError("no licence")
        """,
        "RuntimeError: no licence",
    ),
    "a hook with an argument it is not given": (
        """
        from nashtune.plugins import hookimpl

        @hookimpl
        def nashtune_components(registry):
            return []
        """,
        "Argument(s) {'registry'}",
    ),
    "no hook at all": ("answer = 42", "it offers nothing: no function of broken_pkg has @hookimpl"),
    "a misspelt hook": (
        """
        from nashtune.plugins import hookimpl

        @hookimpl
        def nashtune_component():
            return []
        """,
        "'nashtune_component' is not a hook of nashtune; did you mean 'nashtune_components'?",
    ),
    "a hook without its mark": ("def nashtune_components(): return []", "put @hookimpl"),
    "a hook that gives no list": (
        """
        from nashtune.plugins import Component, hookimpl

        @hookimpl
        def nashtune_components():
            return Component("loss", "broken", "a:B")
        """,
        "it must give a list",
    ),
    "a hook that gives something else": (
        """
        from nashtune.plugins import hookimpl

        @hookimpl
        def nashtune_components():
            return [("loss", "broken", "a:B")]
        """,
        "it must give Component objects",
    ),
    "a spec folder that is not there": (
        """
        from pathlib import Path
        from nashtune.plugins import hookimpl

        @hookimpl
        def nashtune_spec_dirs():
            return [Path(__file__).parent / "nowhere"]
        """,
        "which is not a folder",
    ),
    "an exception without a text": (
        """
        class Named(type):
            def __getattribute__(cls, name):
                raise RuntimeError("no name")

        class Evil(Exception, metaclass=Named):
            def __str__(self):
                raise ValueError("no text")

        raise Evil
        """,
        "Evil: (no text",
    ),
    "a list without an end": (ANSWER.format("itertools.repeat(Component('loss', 'x', 'a:B'))"), "more than 10000"),
    "a folder without an end": (ANSWER.format("[]") + FOLDERS, "nashtune_spec_dirs gave more than 10000"),
    "a component whose name raises": (ANSWER.format("[Component('loss', Evil(), 'a:B')]"), "RuntimeError: no text"),
    "a component that raises": (ANSWER.format("[Loud('loss', 'x', 'a:B')]"), "RuntimeError: loud"),
    "a problem that raises": (ANSWER.format("[Problem('a.py', Evil())]"), "RuntimeError: no text"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_plugin_is_recorded_and_the_others_go_on(site, what):
    text, said = BROKEN[what]
    site.dist("broken-dist", "0.3", broken="broken_pkg")
    site.file("broken_pkg.py", text)
    site.dist("zeta", zeta="zeta_pkg")
    site.file("zeta_pkg.py", GOOD.format(name="zeta"))
    plugins = found()
    one = record(plugins, "broken")
    assert one.status == "failed"
    assert said in one.reason and "\n" not in one.reason
    assert not one.components and not one.spec_dirs
    assert plugins.registry.get("loss", "zeta").plugin == "zeta"
    with pytest.raises(InputError, match=r"plugin 'broken' \(broken-dist 0.3\) failed: .*run `nashtune plugins`"):
        plugins.registry.get("loss", "surely_unknown")


def test_a_component_with_code_of_its_own_in_its_words_is_taken_for_the_words(site):
    words = """
class Word(str):
    def __hash__(self):
        raise RuntimeError("word")
    __eq__ = __format__ = __str__ = __hash__
"""
    site.dist("words", words="words_pkg")
    site.file("words_pkg.py", words + ANSWER.format("[Component(Word('loss'), Word('worded'), Word('a:B'))]"))
    entry = found().registry.get("loss", "worded")
    assert type(entry.component.name) is str and entry.plugin == "words"


@pytest.mark.parametrize("file", ["METADATA", "entry_points.txt", "no equals sign", "no METADATA"])
def test_a_distribution_with_damaged_metadata_fails_alone(site, capsys, file):
    site.dist("broken-dist", "0.3", broken="broken_pkg")
    site.dist("other", "2.0")
    site.dist("zeta", zeta="zeta_pkg")
    site.file("zeta_pkg.py", GOOD.format(name="zeta"))
    site.file("broken_pkg.py", GOOD.format(name="broken"))
    for name in ("broken_dist-0.3", "other-2.0"):
        place = site.folder / f"{name}.dist-info"
        ours = name[0] == "b"
        if file == "no METADATA":
            (place / "METADATA").unlink()
        elif file == "no equals sign":
            (place / "entry_points.txt").write_text("[nashtune]\nzeta_pkg\n" if ours else "[other]\nx\n")
        else:
            whole = (place / file).read_bytes()
            (place / file).write_bytes((whole if ours else whole.replace(b"nashtune", b"other")) + b"\xe9")
    plugins = load_plugins()
    assert plugins.registry.get("loss", "zeta").plugin == "zeta"
    assert plugins.registry.get("loss", "dpo").plugin == "builtin"
    said = capsys.readouterr().err
    if "METADATA" in file:
        assert (record(plugins, "broken").dist, said.count("\n")) in (("", 0), ("broken-dist", 0))
    else:
        assert record(plugins, "broken_dist-0.3").status == "failed"
        assert "entry_points.txt cannot be read: " in said and said.count("\n") == 1


def test_what_a_plugin_says_cannot_steer_the_terminal(site, capsys):
    site.dist("evil\x1b[2J", "1\x9b2J", **{"evil\x07\u202e": "evil_pkg"})
    site.file("evil_pkg.py", "raise RuntimeError('\\x1b[2J\\nerror: fake')")
    load_plugins()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.strip().isprintable()
    assert r"plugin 'evil\x07\u202e'" in said and r"RuntimeError: \x1b[2J error: fake" in said


def test_a_component_of_a_plugin_that_failed_elsewhere_says_so_by_name(site):
    site.dist("half", half="half_pkg")
    site.file(
        "half_pkg.py", GOOD.format(name="half") + "\n    @hookimpl\n    def nashtune_spec_dir():\n        return []\n"
    )
    with pytest.raises(InputError, match=r"loss 'half' cannot be used: plugin 'half' failed: .*'nashtune_spec_dir'"):
        found().registry.get("loss", "half")


def test_a_hook_of_a_later_nashtune_may_be_marked_optional(site):
    site.dist("later", later="later_pkg")
    site.file(
        "later_pkg.py",
        GOOD.format(name="later")
        + "\n    @hookimpl(optionalhook=True)\n    def nashtune_games():\n        return []\n",
    )
    assert record(found(), "later").status == "ok"


def test_too_new_a_component_is_refused_with_the_upgrade_hint_and_its_neighbour_works(site):
    site.dist("newer", "3.0", newer="newer_pkg")
    site.file(
        "newer_pkg.py",
        """
        from nashtune.plugins import Component, hookimpl

        @hookimpl
        def nashtune_components():
            return [Component("loss", "old_one", "n:A"), Component("loss", "new_one", "n:B", api=2)]
        """,
    )
    plugins = found()
    one = record(plugins, "newer")
    assert one.status == "refused"
    assert "needs plugin API 2, this nashtune has 1; upgrade nashtune" in one.reason
    assert [component.name for component in one.components] == ["old_one"]
    with pytest.raises(InputError, match=r"loss 'new_one' cannot be used: plugin 'newer' 3.0: .*upgrade nashtune"):
        plugins.registry.get("loss", "new_one")


def test_an_unknown_kind_is_recorded_with_the_nearest(site):
    site.dist("typo", typo="typo_pkg")
    site.file("typo_pkg.py", GOOD.format(name="typo").replace('"loss"', '"lose"'))
    one = record(found(), "typo")
    assert one.status == "refused" and "did you mean 'loss'?" in one.reason


def test_a_name_of_the_core_stays_with_it(site):
    site.dist("clash", clash="clash_pkg")
    site.file("clash_pkg.py", GOOD.format(name="fixed").replace('"loss"', '"kl"'))
    plugins = found()
    one = record(plugins, "clash")
    assert one.status == "refused" and "plugin 'nashtune'" in one.reason and "plugin 'clash'" in one.reason
    assert plugins.registry.get("kl", "fixed").plugin == "nashtune"


def test_two_others_with_one_name_are_both_recorded_and_using_it_is_an_error(site):
    for name in ("one", "two"):
        site.dist(name, **{name: f"{name}_pkg"})
        site.file(f"{name}_pkg.py", GOOD.format(name="same"))
    plugins = found()
    for name in ("one", "two"):
        assert record(plugins, name).status == "refused"
        assert record(plugins, name).components == []
    with pytest.raises(InputError, match=r"plugin 'one' .* and by plugin 'two'"):
        plugins.registry.get("loss", "same")
    freed = found(NASHTUNE_BLOCK="two")
    assert freed.registry.get("loss", "same").plugin == "one"


def test_a_plugin_name_that_is_taken_is_refused_naming_both(site):
    site.dist("impostor", "6.6", builtin="impostor_pkg")
    site.file("impostor_pkg.py", GOOD.format(name="impostor"))
    [own, other] = [one for one in found().records if one.name == "builtin"]
    assert own.dist == "nashtune" and own.status == "ok"
    assert other.status == "failed" and "already used by nashtune" in other.reason and "impostor" in other.reason


def test_a_distribution_that_is_on_the_path_twice_counts_once(site, tmp_path, monkeypatch):
    site.dist("Acme.Losses", "2.0", acme="acme_pkg")
    site.file("acme_pkg.py", GOOD.format(name="acme"))
    other = type(site)(tmp_path / "behind")
    other.dist("acme-losses", "1.0", acme="acme_pkg")
    monkeypatch.setattr(sys, "path", [*sys.path, str(other.folder)])
    assert record(found(), "acme").version == "2.0"


def test_blocking_by_entry_point_name_never_imports_the_plugin(site):
    site.dist("acme", acme="acme_pkg")
    site.file("acme_pkg.py", "raise RuntimeError('imported')")
    plugins = found(NASHTUNE_BLOCK=" acme, ")
    assert record(plugins, "acme").status == "blocked"
    assert "acme_pkg" not in sys.modules
    assert "plugin 'acme' is blocked by NASHTUNE_BLOCK" in plugins.note()


def test_the_built_in_set_can_be_blocked():
    plugins = found(NASHTUNE_BLOCK="builtin")
    assert record(plugins, "builtin").status == "blocked"
    assert plugins.registry.names("kl") == ["adaptive", "fixed"]


def test_blocking_a_name_that_nobody_has_is_said(site):
    one = record(found(NASHTUNE_BLOCK="bultin"), "bultin")
    assert one.status == "blocked" and "did you mean 'builtin'?" in one.reason


def test_nashtune_without_its_distribution_says_how_to_install_it():
    plugins = discover([], {})
    assert "pip install -e ." in record(plugins, "builtin").reason
    assert plugins.registry.get("kl", "fixed").plugin == "nashtune"


def test_each_problem_is_said_once_on_one_line_of_stderr(site, capsys):
    site.dist("broken", broken="broken_pkg")
    site.file("broken_pkg.py", "import not_there_at_all")
    load_plugins()
    load_plugins()
    said = capsys.readouterr()
    assert said.out == ""
    [line] = [line for line in said.err.splitlines() if "broken" in line]
    assert "not_there_at_all" in line and "nashtune plugins" in line


@pytest.mark.parametrize("what", ["an unknown name", "the name that it gave"])
def test_a_problem_that_was_said_is_not_said_again(site, capsys, what):
    site.dist("half", half="half_pkg")
    site.file("half_pkg.py", GOOD.format(name="half") + "\n    def nashtune_spec_dirs():\n        return []\n")
    registry = load_plugins().registry
    with pytest.raises(InputError) as refused:
        registry.get("loss", "surely_unknown" if what == "an unknown name" else "half")
    assert capsys.readouterr().err.count("put @hookimpl") == 1
    assert "put @hookimpl" not in str(refused.value) and "said above" in str(refused.value)


def test_a_caller_that_shows_the_problems_can_have_them_unsaid(site, capsys):
    site.dist("broken", broken="broken_pkg")
    site.file("broken_pkg.py", "import not_there_at_all")
    plugins = load_plugins(quiet=True)
    assert capsys.readouterr().err == ""
    assert "not_there_at_all" in plugins.note()


def test_a_syntax_error_is_said_with_the_whole_path_of_its_file(site):
    site.dist("broken", broken="broken_pkg")
    file = site.file("broken_pkg.py", "def f(:")
    assert record(found(), "broken").reason == f"broken_pkg cannot be imported: SyntaxError: invalid syntax ({file}:1)"


def test_strict_makes_any_failure_fatal(site, monkeypatch):
    site.dist("broken", broken="broken_pkg")
    site.file("broken_pkg.py", "import not_there_at_all")
    monkeypatch.setenv("NASHTUNE_STRICT_PLUGINS", "1")
    with pytest.raises(InputError, match=r"NASHTUNE_STRICT_PLUGINS=1: plugin 'broken' failed: .*not_there_at_all"):
        load_plugins()
    monkeypatch.setenv("NASHTUNE_BLOCK", "broken")
    assert record(load_plugins(), "broken").status == "blocked"


def test_strict_takes_0_or_1_only(monkeypatch, site):
    monkeypatch.setenv("NASHTUNE_STRICT_PLUGINS", "yes")
    with pytest.raises(InputError, match="must be 1 or 0"):
        load_plugins()


def test_loading_plugins_imports_neither_torch_nor_lightning():
    code = (
        "import sys; from nashtune.plugins import load_plugins; load_plugins();"
        "print(sorted({'torch', 'lightning', 'transformers', 'jsonargparse', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plugin_that_is_interrupted_is_named(site):
    site.dist("slow-dist", slow="slow_pkg")
    site.file("slow_pkg.py", "raise KeyboardInterrupt")
    with pytest.raises(Interrupted, match="while plugin 'slow' was imported; NASHTUNE_BLOCK=slow leaves it out") as end:
        found()
    assert end.value.code == 130
    assert record(found(NASHTUNE_BLOCK="slow"), "slow").status == "blocked"


def test_a_plugin_that_takes_long_is_named_while_it_does(site, monkeypatch, capsys):
    """The plugin itself waits until the line has been written."""
    monkeypatch.setattr(importing, "SLOW_SECONDS", 0.01)
    site.dist("slow-dist", slow="slow_pkg")
    site.file(
        "slow_pkg.py",
        """
        import time
        from nashtune.plugins import Component, hookimpl
        import slow_seen

        while "NASHTUNE_BLOCK=slow leaves it out" not in slow_seen.lines():
            time.sleep(0.01)

        @hookimpl
        def nashtune_components():
            return [Component("loss", "slow", "slow_pkg:Loss")]
        """,
    )
    site.file("slow_seen.py", "lines = None")
    import slow_seen

    said: list[str] = []

    def lines() -> str:
        said.append(capsys.readouterr().err)
        return "".join(said)

    slow_seen.lines = lines
    assert record(found(), "slow").status == "ok"
    # on a loaded machine the built-in plugin takes as long, too
    assert "nashtune: still importing plugin 'slow'; NASHTUNE_BLOCK=slow leaves it out\n" in "".join(said)
