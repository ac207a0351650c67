"""Why a node of Flower's could not join, in one line with its remedy, from what it said."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """What stands between a client and its server."""

    remedy: str
    may_pass: bool = False
    """Whether the same client may be let in a minute later."""


_SIGNS = {
    "hostname mismatch": Refusal(
        "the server's certificate has other names; write the server as it is in there, or make "
        "one with: fedpace certificates FOLDER --host NAME"
    ),
    "IP address mismatch": Refusal(
        "the server's certificate has other addresses; write the server as it is in there, or "
        "make one with: fedpace certificates FOLDER --host ADDRESS"
    ),
    "CERTIFICATE_VERIFY_FAILED": Refusal(
        "the server's certificate is not of the authority given by --ca; bring ca.crt from the "
        "server's certificates"
    ),
    "WRONG_VERSION_NUMBER": Refusal(
        "the server answers without TLS; leave --ca and --key out, or start it with "
        "--certificates and --keys"
    ),
    "record layer failure": Refusal(
        "the server answers without TLS; leave --ca and --key out, or start it with "
        "--certificates and --keys"
    ),
    "Server disconnected": Refusal(
        "the server hangs up; if it was started with --certificates and --keys, give --ca and --key"
    ),
    "[code: 2001]": Refusal("the server asks for a key; give --ca and --key"),
    "[code: 2004]": Refusal(
        "the server does not know this key, or not any more; there: fedpace keys add NAME",
        may_pass=True,  # a client that died is held for connected for up to a minute
    ),
}


def refusal_in(log: str) -> Refusal | None:
    """Find in a node's log why it was not let in; None where it was, or did not say."""
    if "Failed to initialize the connection" not in log:
        return None
    return next((refusal for sign, refusal in _SIGNS.items() if sign in log), None)
