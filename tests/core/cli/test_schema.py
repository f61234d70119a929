from __future__ import annotations

import json

import jsonschema

from nashtune.cli.main import main


def test_the_schema_is_draft_7(capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(schema)
    assert set(schema["properties"]) >= {"base", "about", "loss", "kl", "references", "optimizer"}


def test_json_changes_nothing(capsys):
    main(["schema"])
    plain = capsys.readouterr().out
    assert main(["schema", "--json"]) == 0
    assert capsys.readouterr().out == plain
