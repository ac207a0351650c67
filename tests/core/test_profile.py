import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.profile import ClientProfile, Clients, System

GOOD = {"data_weight": [3, 1], "step_seconds": [0.1, 0.4], "spectral_efficiency": [2.0, 0.5]}


def test_data_weights_are_shares():
    assert Clients.from_columns(**GOOD).data_weight.tolist() == [0.75, 0.25]


def test_rows_and_columns_build_the_same_clients():
    rows = [ClientProfile("0", 3, 0.1, spectral_efficiency=2.0),
            ClientProfile("1", 1, 0.4, spectral_efficiency=0.5)]  # fmt: skip
    one, two = Clients.from_profiles(rows).columns(), Clients.from_columns(**GOOD).columns()
    assert one.keys() == two.keys()
    for name in one:
        assert np.array_equal(one[name], two[name])


def test_columns_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="read-only"):
        Clients.from_columns(**GOOD).step_seconds[0] = 1.0


def test_the_callers_arrays_stay_writable():
    mine = np.array([0.1, 0.4])
    Clients.from_columns(**{**GOOD, "step_seconds": mine})
    mine[0] = 7.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_weight": [3, 0]}, "data_weight of client '1' is 0; it must be above 0"),
        ({"data_weight": [3, np.nan]}, "data_weight of client '1' is nan; it must be a finite"),
        ({"step_seconds": [0.1, -0.4]}, "step_seconds of client '1' is -0.4"),
        ({"step_seconds": [0.1]}, "'step_seconds' has shape"),
        ({"step_seconds": ["x", 1]}, "'step_seconds' is not numeric"),
        ({"spectral_efficiency": [np.inf, 1]}, "spectral_efficiency of client '0' is inf"),
        ({"max_rank": [0, 1]}, "at least 1; drop the client"),
        ({"max_rank": [4, 3.5]}, "max_rank of client '1' is 3.5; it must be a whole number, or"),
        ({"availability": [0.5, 1.5]}, "availability of client '1' is 1.5"),
        ({"client_id": ["a", "a"]}, "client_id 'a' appears twice"),
        ({"snr_hz": [1, 1]}, "exactly one link column"),
        ({"speed": [1, 1]}, "unknown client column 'speed'; known are"),
        ({"data_weight": [], "step_seconds": [], "spectral_efficiency": []}, "no clients"),
    ],
)
def test_a_wrong_column_is_refused_naming_the_client_and_the_rule(change, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        Clients.from_columns(**{**GOOD, **change})


@pytest.mark.parametrize("missing", ["data_weight", "step_seconds", "spectral_efficiency"])
def test_a_missing_required_column_is_named(missing):
    columns = {k: v for k, v in GOOD.items() if k != missing}
    with pytest.raises(InputError, match=missing):
        Clients.from_columns(**columns)


@pytest.mark.parametrize(
    "change",
    [{"bandwidth_hz": 0.0}, {"bandwidth_hz": np.nan}, {"lora_rank": 0}, {"local_steps": 0},
     {"noise_ratio": -1.0}, {"sketch": "random"}, {"bits_per_rank": 0.0}],
)  # fmt: skip
def test_an_impossible_system_is_refused(change):
    (name,) = change
    with pytest.raises(InputError, match=name):
        System(**{"bandwidth_hz": 1e6, "lora_rank": 8, **change})


@pytest.mark.parametrize(
    "name", ["bandwidth_hz", "lora_rank", "local_steps", "fixed_bits", "bits_per_rank",
             "noise_ratio", "download_fixed_bits", "download_bits_per_rank",
             "overhead_seconds", "downlink_bps"],
)  # fmt: skip
@pytest.mark.parametrize("value", [float("nan"), 1e31, 1e-31, 10**5000, -1.0, -float("inf")],
                         ids=lambda value: "")  # fmt: skip
def test_a_number_at_the_edge_is_refused_with_its_name(name, value):
    values = {"bandwidth_hz": 1e6, "lora_rank": 4} | {name: value}
    with pytest.raises(InputError, match=f"{name} is .*; it must be") as caught:
        System(**values)
    assert len(str(caught.value)) < 200


def test_a_client_of_a_long_name_is_named_short():
    long = ["x" * 10_000, "y" * 10_000]
    for columns in ({"step_seconds": [1, -1]}, {"client_id": long[:1] * 2}):
        good = {"client_id": long, "data_weight": [1, 1], "step_seconds": [1, 1], "snr_hz": [1, 1]}
        with pytest.raises(InputError) as caught:
            Clients.from_columns(**good | columns)
        assert len(str(caught.value)) < 200


def test_weights_whose_sum_would_overflow_are_refused_and_a_share_cannot_vanish():
    columns = {"step_seconds": [1, 1], "spectral_efficiency": [1, 1]}
    with pytest.raises(InputError, match="data_weight of client '0' is 1e.308; it must be at most"):
        Clients.from_columns(data_weight=[1e308, 1e308], **columns)
    with pytest.raises(InputError, match="data_weight of client '1' is 1e-20, a share of 1e-40"):
        Clients.from_columns(data_weight=[1e20, 1e-20], **columns)
    with pytest.raises(InputError, match="data_weight' is not numeric"):
        Clients.from_columns(data_weight=[10**5000, 1], **columns)
