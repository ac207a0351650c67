import pytest

from fedpace.core.errors import FedPaceError, InputError, MissingExtraError, RunError, public_part


@pytest.mark.parametrize("kind", [FedPaceError, InputError, RunError])
def test_nothing_of_a_message_is_public_unless_it_was_said_to_be(kind):
    error = kind("notes.csv:3: label is 'Ann Lee'")
    assert public_part(error) == "its own screen says why"
    assert public_part(kind("Ann Lee", public="a label is no class")) == "a label is no class"


def test_of_a_foreign_exception_the_type_alone_is_public():
    assert public_part(TypeError("cannot tokenise 'Ann Lee'")) == "TypeError"


def test_a_missing_package_is_public():
    assert public_part(MissingExtraError("pyarrow", "lora")).startswith("this needs the package")
