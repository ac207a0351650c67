import numpy as np

from federation.toy import make_plan
from fedpace.federation.participation import sample_participants


def test_everyone_joins_at_probability_one():
    plan = make_plan([1.0, 1.0, 1.0], [1, 1, 1])
    for index in range(20):
        joined = sample_participants(plan, index, seed=3)
        assert joined.client.tolist() == [0, 1, 2]
        assert joined.inverse_probability.tolist() == [1.0, 1.0, 1.0]


def test_each_client_joins_as_often_as_its_probability_says_and_independently():
    q = np.array([0.1, 0.5, 0.9])
    rounds = 4000
    joined = np.zeros((rounds, 3))
    for index in range(rounds):
        joined[index, sample_participants(make_plan(q, [1, 1, 1]), index, 0).client] = 1
    sigma = np.sqrt(q * (1 - q) / rounds)
    assert np.all(np.abs(joined.mean(axis=0) - q) < 4 * sigma)
    correlation = np.corrcoef(joined.T) - np.eye(3)
    assert np.all(np.abs(correlation) < 4 / np.sqrt(rounds))


def test_one_clients_draw_does_not_depend_on_the_probability_of_another():
    for index in range(50):
        a = 1 in sample_participants(make_plan([0.1, 0.5], [1, 1]), index, 0).client
        b = 1 in sample_participants(make_plan([0.9, 0.5], [1, 1]), index, 0).client
        assert a == b


def test_the_inverse_probability_weights_have_mean_one_in_both_kinds_of_sampling():
    for plan in (make_plan([0.3, 0.6, 1.0], [1] * 3), make_plan([0.2, 0.3, 0.5], [1] * 3, draws=2)):
        mean = np.zeros(3)
        rounds = 4000
        for index in range(rounds):
            joined = sample_participants(plan, index, 1)
            mean[joined.client] += joined.inverse_probability / rounds
        np.testing.assert_allclose(mean, 1.0, atol=0.12)


def test_drawing_with_replacement_asks_at_most_k_clients():
    plan = make_plan([0.25] * 4, [1] * 4, draws=2)
    sizes = {len(sample_participants(plan, index, 1).client) for index in range(50)}
    assert sizes == {1, 2}
