import json
import math
from dataclasses import replace

import numpy as np
import pytest

from federation.test_rounds import InstantEngine
from federation.toy import LAYOUT, blank, context, make_plan, random_adapter, towards
from fedpace.core.adapter import squared_norms
from fedpace.core.errors import InputError, RunError
from fedpace.core.messages import ClientTask, draw_components
from fedpace.core.record import RoundRecord
from fedpace.core.sketch import LEADING, RESIDUAL, SCALED
from fedpace.federation.checks import (
    Checks,
    Watch,
    believed_examples,
    check_updates,
    judge_norms,
)
from fedpace.federation.engine import RoundOutcome
from fedpace.federation.methods.sketched import sketched
from fedpace.federation.rounds import Federation, ServerState, run_round
from fedpace.federation.server_optimizer import server_sgd

TASKS = [ClientTask(n, 2, blank(), rank, seed=5) for n, rank in enumerate((4, 2, 3, 1))]
HONEST = towards(random_adapter(0))(TASKS)


def with_tensor(update, name, value):
    return replace(update, delta={**update.delta, name: value})


def spoiled(name, value):
    def spoil(update):
        tensor = update.delta[name].copy()
        tensor.flat[0] = value
        return with_tensor(update, name, tensor)

    return spoil


def without(name):
    def spoil(update):
        return replace(update, delta={k: v for k, v in update.delta.items() if k != name})

    return spoil


BAD = {
    "nan": (spoiled("one.A", np.nan), "'one.A' has a value that is not finite"),
    "infinite": (spoiled("head", np.inf), "'head' has a value that is not finite"),
    "double": (lambda u: with_tensor(u, "head", u.delta["head"].astype(np.float64)), "float64"),
    "code": (lambda u: with_tensor(u, "head", u.delta["head"].astype(object)), "object"),
    "shape": (lambda u: with_tensor(u, "two.B", u.delta["two.B"][:, :1]), "shape (3, 1)"),
    "whole": (lambda u: with_tensor(u, "one.A", blank()["one.A"]), "shape (4, 3)"),
    "missing": (without("two.A"), "'two.A' is missing"),
    "unknown": (lambda u: with_tensor(u, "three.A", u.delta["one.A"]), "'three.A' is unknown"),
    "old": (lambda u: replace(u, round_index=1), "an answer to round 1 in round 2"),
    "unasked": (lambda u: replace(u, client=9), "nobody asked for"),
    "loss": (lambda u: replace(u, train_loss=math.nan), "loss is nan"),
    "huge loss": (lambda u: replace(u, train_loss=1e307), "loss is 1e+307"),
    "negative loss": (lambda u: replace(u, train_loss=-0.5), "loss is -0.5"),
    "other components": (
        lambda u: replace(u, components=np.setdiff1d(np.arange(4), u.components)), "were assigned",
    ),
    "unsorted": (lambda u: replace(u, components=u.components[::-1]), "were assigned"),
}  # fmt: skip


def judge(updates, checks=Checks(), watch=Watch(), tasks=TASKS, clients=None):
    return check_updates(checks, watch, tasks, updates, LAYOUT, RESIDUAL, clients=clients)


def test_what_was_asked_for_is_accepted():
    verdict = judge(HONEST)
    assert list(verdict.accepted) == [0, 1, 2, 3]
    assert verdict.refusals == ()


def test_who_trains_the_first_components_may_send_no_others():
    random = HONEST[1]
    first = replace(random, components=np.arange(2))
    assert not np.array_equal(random.components, first.components)
    for update, refused in ((first, 0), (random, 1)):
        made = check_updates(Checks(), Watch(), TASKS[1:2], [update], LAYOUT, LEADING)
        assert len(made.refusals) == refused


def test_where_only_b_is_trained_a_is_not_taken():
    part = LAYOUT.only(("B",))
    update = replace(HONEST[0], delta={n: HONEST[0].delta[n] for n in ("one.B", "two.B")})
    for sent, refused in ((update, 0), (HONEST[0], 1)):
        made = check_updates(Checks(), Watch(), TASKS[:1], [sent], part, RESIDUAL)
        assert len(made.refusals) == refused


@pytest.mark.parametrize("kind", BAD)
def test_one_fault_refuses_that_update_alone_and_says_why(kind):
    spoil, reason = BAD[kind]
    bad = spoil(HONEST[1])
    verdict = judge([HONEST[0], bad, *HONEST[2:]])
    assert list(verdict.accepted) == [0, 2, 3]
    [(client, said)] = verdict.refusals
    assert client == bad.client and reason in said
    assert verdict.watch.strikes == {bad.client: 1}


def test_the_second_answer_of_a_client_is_refused():
    verdict = judge([*HONEST, HONEST[0]])
    assert list(verdict.accepted) == [0, 1, 2, 3]
    assert verdict.refusals == ((0, "an answer that nobody asked for, or a second one"),)


def longer(update, factor, names=None):
    return replace(
        update,
        delta={
            n: v * np.float32(factor) if names is None or n in names else v
            for n, v in update.delta.items()
        },
    )


@pytest.mark.parametrize("names", [{"head"}, {"one.A", "one.B", "two.A", "two.B"}])
def test_an_update_above_the_limit_of_either_part_is_refused(names):
    checks = Checks(norm_factor=3.0)
    short = judge([HONEST[0], longer(HONEST[1], 1.5, names), *HONEST[2:]], checks)
    assert short.refusals == ()
    long = judge([HONEST[0], longer(HONEST[1], 30.0, names), *HONEST[2:]], checks)
    assert list(long.accepted) == [0, 2, 3]
    assert "norm of the" in long.refusals[0][1]


def test_of_two_norms_the_smaller_one_sets_the_limit():
    verdict = judge([HONEST[0], longer(HONEST[1], 1e6)], clients=2)
    assert list(verdict.accepted) == [0]


def test_until_enough_clients_were_heard_the_adapter_is_the_scale():
    adapter = random_adapter(1)
    size = math.sqrt(sum(float(np.sum(v.astype(float) ** 2)) for v in adapter.values()))
    tasks = [replace(task, adapter=adapter) for task in TASKS[:2]]
    longest = 0.99 * 6 * size / math.sqrt(max(squared_norms(HONEST[0].delta, LAYOUT)))
    for factor, refused in ((longest, 0), (1.05 * longest, 1)):
        alone = judge([longer(HONEST[0], factor)], Checks(norm_factor=6.0), tasks=tasks)
        assert len(alone.refusals) == refused


def test_the_cap_holds_before_there_is_any_history():
    lora, head = squared_norms(HONEST[0].delta, LAYOUT)
    just_enough = math.sqrt(max(lora, head)) * 1.001
    assert judge(HONEST[:1], Checks(norm_cap=just_enough)).refusals == ()
    assert len(judge([longer(HONEST[0], 1.1)], Checks(norm_cap=just_enough)).refusals) == 1


@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL])
def test_norms_of_all_ranks_are_alike_under_one_limit(sketch):
    """Over every index set, the mean square of what is compared is that of the whole update."""
    full = random_adapter(3)
    whole = squared_norms(full, LAYOUT)[0]
    for rank in (1, 2, 3):
        seen = []
        for seed in range(400):
            chosen = draw_components(seed, 0, 0, LAYOUT.rank, rank)
            task = ClientTask(0, 0, blank(), rank, seed)
            factor = LAYOUT.rank / rank if sketch == SCALED else 1.0
            step = {n: np.float32(factor) * v for n, v in full.items()}
            [update] = towards(step, 1.0)([task])
            step["head"] = full["head"]
            assert np.array_equal(update.components, chosen)
            verdict = check_updates(Checks(), Watch(), [task], [update], LAYOUT, sketch)
            seen.append(verdict.watch.recent[-1][2][0] ** 2)
        assert np.mean(seen) == pytest.approx(whole, rel=0.05)


def test_norms_that_all_grow_carry_the_limit_with_them():
    watch = judge(HONEST).watch
    larger = [longer(u, 1e6) for u in HONEST]
    assert len(judge(larger[:1], watch=watch, tasks=TASKS[:1]).refusals) == 1
    assert judge(larger, watch=watch).refusals == ()


def test_norms_that_grow_are_followed_also_where_one_of_three_has_left():
    _, watch = played({0: 1.0, 1: 1.0, 2: 1.0}, rounds=20)
    size = 1.0
    for _ in range(120):
        size *= 1.05
        told, watch = played({0: size, 1: 1.3 * size}, watch=watch)
        assert not any(told)
    for index in range(120):  # and where each is asked now and then
        size *= 1.02
        told, watch = played({index % 3: size}, watch=watch)
        assert not any(told)


def test_a_fleet_of_two_that_a_silent_third_has_joined_is_still_followed():
    """And the one of them that is left at last; in the first rounds norms grow."""
    size, watch = 1.0, Watch()
    for index in range(200):
        size *= 1.05
        norms = [(c, (x, x)) for c, x in ((0, size), (1, 1.5 * size))]
        heard = norms[: 1 if index > 100 else 2]
        told, watch = judge_norms(Checks(), watch, index, heard, 1e9, 2 if index < 5 else 3)
        assert not any(told)


def answered(watch, index, factor, clients):
    """A round in which everybody was asked and some answered; norms are `factor` times as long."""
    tasks = [replace(task, round_index=index) for task in TASKS]
    updates = [longer(update, factor) for update in towards(random_adapter(0))(tasks)]
    updates = [update for update in updates if update.client in clients]
    return judge(updates, watch=watch, tasks=tasks, clients=len(TASKS))


def test_who_left_while_norms_grew_does_not_hold_back_the_two_who_go_on():
    watch, size = Watch(), 1.0
    for index in range(60):
        size *= 1.3
        verdict = answered(watch, index, size, range(4) if index < 5 else (0, 1))
        assert verdict.refusals == ()
        watch = verdict.watch
    assert watch.silent == {2: 55, 3: 55}
    back = answered(watch, 60, size, range(4))
    assert back.refusals == () and not back.watch.silent


def test_one_who_is_alone_for_some_rounds_does_not_set_the_limit():
    watch = Watch()
    for index in range(30):
        watch = answered(watch, index, 1.0, range(4)).watch
    for index in range(30, 45):
        watch = answered(watch, index, 100.0, (3,)).watch
    assert watch.excluded(Checks()) == {3}
    assert watch.largest == answered(Watch(), 0, 1.0, range(4)).watch.largest


def played(norms, checks=Checks(), rounds=1, watch=Watch()):
    """Rounds of clients with these norms, LoRA part and head alike."""
    index = watch.recent[-1][0] + 1 if watch.recent else 0
    for round_index in range(index, index + rounds):
        found = [(c, (x, x)) for c, x in norms.items()]
        told, watch = judge_norms(checks, watch, round_index, found, 1e9)
    return told, watch


def test_a_client_that_goes_on_while_the_others_have_learned_is_held_to_its_own_past():
    """The median falls to a thousandth, one client's norms do not: in a long run both are honest"""
    _, watch = played({0: 1.0, 1: 1.2, 2: 2.0, 3: 1.0}, rounds=30)
    late = {0: 1e-3, 1: 1e-3, 2: 2.0, 3: 1e-3}
    told, watch = played(late, rounds=200, watch=watch)
    assert not any(told) and watch.strikes == {}
    told, _ = played({**late, 0: 7e-3}, watch=watch)
    assert told[0] and not any(told[1:])  # a client that was like the others may not be so


def test_a_new_client_is_held_to_the_scale_at_which_the_others_began():
    _, watch = played({0: 1.0, 1: 1.0, 2: 1.0}, rounds=5)
    _, watch = played({0: 1e-3, 1: 1e-3, 2: 1e-3}, rounds=100, watch=watch)
    assert played({0: 1e-3, 1: 1e-3, 2: 1e-3, 3: 5.9}, watch=watch)[0][3] == ""
    assert played({0: 1e-3, 1: 1e-3, 2: 1e-3, 3: 6.1}, watch=watch)[0][3] != ""


def test_norms_that_creep_up_end_at_the_largest_scale_of_the_others():
    _, watch = played({0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}, rounds=10)
    size, most = 1.0, 0.0
    for _ in range(300):
        told, watch = played({0: 0.01, 1: 0.01, 2: 0.01, 3: size}, watch=watch)
        most = max(most, 0.0 if told[3] else size)
        size *= 0.9 if told[3] else 1.05
    assert 3.0 < most <= 6.0


def test_strikes_decay_and_only_who_is_refused_often_is_excluded():
    checks, fleet = Checks(), {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}
    watch = played(fleet, rounds=10)[1]
    for index in range(600):  # one refusal in seven rounds
        watch = played({**fleet, 3: 100.0 if index % 7 == 0 else 1.0}, watch=watch)[1]
    assert not watch.excluded(checks)
    for index in range(40):  # one in two
        watch = played({**fleet, 3: 100.0 if index % 2 == 0 else 1.0}, watch=watch)[1]
    assert watch.excluded(checks) == {3}


def test_the_state_survives_a_checkpoint():
    verdict = judge([HONEST[0], spoiled("head", np.nan)(HONEST[1]), HONEST[2]])
    assert verdict.watch.strikes and verdict.watch.silent == {3: 1}
    assert Watch.from_json(json.loads(json.dumps(verdict.watch.to_json()))) == verdict.watch


def test_an_unsound_setting_is_told():
    with pytest.raises(InputError, match="norm_factor is 0.5"):
        Checks(norm_factor=0.5)
    with pytest.raises(InputError, match="strikes is 0"):
        Checks(strikes=0)


def test_in_a_small_fleet_no_claim_is_worth_more_than_all_others_together():
    assert believed_examples([100, 100, 100, 10**12]).tolist() == [100, 100, 100, 300]
    assert believed_examples([100, 10**12]).tolist() == [100, 100]
    assert believed_examples([100, 900], most_weight=1.0).tolist() == [100, 900]
    assert believed_examples([7]).tolist() == [7]


@pytest.mark.parametrize("liars", [1, 5, 10])
def test_who_claims_many_examples_weighs_no_more_than_the_bound(liars):
    honest = np.random.default_rng(0).integers(50, 400, CLIENTS - liars)
    claimed = np.concatenate([honest, np.full(liars, 10**12)])
    believed = believed_examples(claimed.tolist(), 4.0)
    assert (believed / believed.sum()).max() <= 2 * 4.0 / CLIENTS
    assert np.array_equal(believed[: len(honest)], honest)


# --- a whole federation: one of twenty is malicious -------------------------------------------

CLIENTS, BAD_CLIENT, ROUNDS, RATE = 20, 7, 12, 0.3


def honest_train(tasks):
    """Each client pulls towards a target of its own: they disagree, as real ones do."""
    common = random_adapter(0)
    updates = []
    for task in tasks:
        own = random_adapter(100 + task.client)
        target = {n: common[n] + np.float32(0.3) * own[n] for n in common}
        updates += towards(target, RATE)([task])
    return updates


def attack(change):
    def train(tasks):
        return [change(u) if u.client == BAD_CLIENT else u for u in honest_train(tasks)]

    return train


def play(train, checks, *, rounds=ROUNDS, ranks=4, engine=InstantEngine):
    federation = Federation(
        method="test", layout=LAYOUT, data_weight=np.full(CLIENTS, 1 / CLIENTS),
        availability=np.ones(CLIENTS), aggregation=sketched(context(RESIDUAL)),
        server_optimizer=server_sgd(1.0), seed=0, checks=checks,
    )  # fmt: skip
    plan = make_plan(np.ones(CLIENTS), np.full(CLIENTS, ranks))
    state = ServerState(0, blank(), federation.server_optimizer.init(blank()), plan)
    engine, records, watches = engine(train), [], []
    for _ in range(rounds):
        record, state = run_round(engine, federation, state)
        records.append(record)
        watches.append(state.watch)
    return records, watches, state


def distance(one, two):
    return math.sqrt(sum(float(np.sum((one[n].astype(float) - two[n]) ** 2)) for n in one))


class WithoutTheBadOne(InstantEngine):
    def run_round(self, round_index, tasks):
        return super().run_round(round_index, [t for t in tasks if t.client != BAD_CLIENT])


ATTACKS = {
    "scaled": lambda u: longer(u, 1e4),
    "scaled within the limit": lambda u: longer(u, 5.0),
    "sign-flipped": lambda u: longer(u, -1.0),
    "flipped and scaled": lambda u: longer(u, -1e4),
    "nan": spoiled("one.B", np.nan),
    "noise": lambda u: replace(
        u, delta={n: np.full_like(v, 3e3) * (-1) ** u.round_index for n, v in u.delta.items()}
    ),
}


@pytest.mark.parametrize("ranks", [4, 2])
@pytest.mark.parametrize("kind", ATTACKS)
def test_one_malicious_client_of_twenty_moves_the_result_by_no_more_than_the_bound(kind, ranks):
    """The bound of fedpace.federation.checks, added up over the rounds.

    Honest clients contract towards fixed points, so what was moved in one round does not grow
    later, and the model cannot have moved by more than the sum of the rounds' bounds.
    """
    checks = Checks(norm_factor=6.0, strikes=1000)
    _, _, clean = play(honest_train, None, ranks=ranks, engine=WithoutTheBadOne)
    _, watches, attacked = play(attack(ATTACKS[kind]), checks, ranks=ranks)
    bound = 0.0
    for watch in watches:
        lora, head = (checks.norm_factor * scale for scale in watch.largest)
        bound += math.hypot(lora * math.sqrt(LAYOUT.rank / ranks), head) / CLIENTS
    moved = distance(clean.adapter, attacked.adapter)
    assert moved <= bound
    if kind in ("scaled", "flipped and scaled", "noise", "nan"):
        _, _, open_door = play(attack(ATTACKS[kind]), None, ranks=ranks)
        without_checks = distance(clean.adapter, open_door.adapter)
        # A number that is none stops the round, with or without checks: nothing is moved.
        assert kind == "nan" or not without_checks <= 10 * bound
        # Refused in every round it was asked, so the result is that of the honest alone.
        assert moved < 1e-6
    else:
        assert watches[-1].strikes == {} and moved > bound / 100


def test_the_median_of_honest_norms_is_what_the_malicious_one_cannot_move():
    _, clean, _ = play(honest_train, Checks(), engine=WithoutTheBadOne)
    _, attacked, _ = play(attack(ATTACKS["noise"]), Checks(strikes=1000))
    honest = 0.0
    for one, two in zip(clean, attacked, strict=True):
        honest = max(honest, *(lora for *_, (lora, _) in one.recent))
        assert 0 < two.largest[0] <= honest


def test_a_client_refused_too_often_is_not_asked_again():
    records, watches, _ = play(attack(spoiled("head", np.nan)), Checks(strikes=3))
    assert [len(r.refusals) for r in records] == [1, 1, 1] + [0] * (ROUNDS - 3)
    assert all(client == BAD_CLIENT for r in records for client, _ in r.refusals)
    assert [len(r.participants) for r in records] == [19] * ROUNDS
    asked = []

    class Counting(InstantEngine):
        def run_round(self, round_index, tasks):
            asked.append({t.client for t in tasks})
            return RoundOutcome([], [], 0.0)

    federation = Federation(
        "test", LAYOUT, np.full(CLIENTS, 0.05), np.ones(CLIENTS), sketched(context(RESIDUAL)),
        server_sgd(1.0), 0, Checks(strikes=3),
    )  # fmt: skip
    plan = make_plan(np.ones(CLIENTS), np.full(CLIENTS, 4))
    state = ServerState(9, blank(), {}, plan, watch=watches[-1])
    run_round(Counting(None), federation, state)
    assert asked == [set(range(CLIENTS)) - {BAD_CLIENT}]


def test_those_who_remain_weigh_as_much_as_all_did_and_a_run_with_nobody_left_ends():
    records, _, state = play(attack(spoiled("head", np.nan)), Checks(strikes=2), rounds=3)
    assert [r.excluded for r in records] == [(), (BAD_CLIENT,), ()]
    weights = [sum(p.weight for p in r.participants) for r in records]
    assert weights == pytest.approx([0.95, 0.95, 1.0])
    with pytest.raises(RunError, match="round 3: all 20 clients are excluded"):
        play(lambda tasks: [*map(spoiled("head", np.nan), honest_train(tasks))], Checks(strikes=2))


def test_what_the_engine_could_not_read_is_a_refusal_like_any_other():
    class Garbled(InstantEngine):
        def run_round(self, round_index, tasks):
            outcome = super().run_round(round_index, tasks[1:])
            return replace(outcome, unreadable=[(0, "not safetensors")])

    federation = Federation(
        "test", LAYOUT, np.full(3, 1 / 3), np.ones(3), sketched(context(RESIDUAL)),
        server_sgd(1.0), 0, Checks(),
    )  # fmt: skip
    state = ServerState(0, blank(), {}, make_plan([1, 1, 1], [4, 4, 4]))
    record, after = run_round(Garbled(honest_train), federation, state)
    assert record.refusals == ((0, "not safetensors"),)
    assert [p.client for p in record.participants] == [1, 2]
    assert after.watch.strikes == {0: 1}


def test_what_was_refused_was_sent_and_counts_as_traffic():
    class Talking(InstantEngine):
        def run_round(self, round_index, tasks):
            outcome = super().run_round(round_index, tasks)
            return replace(outcome, other_upload_bytes=7, other_download_bytes=3)

    bad = attack(spoiled("head", np.nan))
    [record], _, _ = play(bad, Checks(), rounds=1, engine=Talking)
    assert len(record.participants) == CLIENTS - 1
    assert record.upload_bits == 8 * (20 * CLIENTS + 7)
    assert record.download_bits == 8 * (10 * CLIENTS + 3)


def test_refusals_are_written_to_the_record_and_old_records_still_load():
    [record, *_], _, _ = play(attack(spoiled("head", np.nan)), Checks(), rounds=1)
    table = json.loads(json.dumps(record.to_json()))
    assert RoundRecord.from_json(table) == record
    del table["refusals"]
    assert RoundRecord.from_json(table).refusals == ()
