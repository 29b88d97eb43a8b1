"""Each format, edited at random: our errors or the reference's result, and nothing else.

Here only some edits of a fixed seed; `make fuzz N=10000` tries more.
"""

import pytest
from engine import Judge, fuzz
from formats import FORMATS

EXAMPLES = 30


@pytest.mark.parametrize("name", FORMATS)
def test_edited_files_are_refused_with_our_errors_or_read_as_the_reference_reads_them(name):
    result = fuzz(name, EXAMPLES)
    assert not result.bad, result.report()
    assert result.counts["same"] > 0
    assert result.counts["refused"] > 0


# Harmless changes are no errors, and the reference is really asked.
@pytest.mark.parametrize(("name", "edit", "verdict"), [
    ("config", ("set", "config.json", ("rope_parameters", "rope_theta"), "500"), "same"),
    ("config", ("set", "config.json", ("hidden_act",), '"gelu"'), "refused"),
    ("tokenizer", ("drop", "special_tokens_map.json", ()), "same"),
    ("template", ("set", "chat_template.jinja", (), "{{ 1 / 0 }}"), "refused"),
], ids=str)  # fmt: skip
def test_one_edit(name, edit, verdict):
    judge = Judge(name)
    try:
        assert judge([edit]) == verdict
    finally:
        judge.close()
