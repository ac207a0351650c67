"""A federation whose mean updates, second moments and noise scale are known, without training."""

import numpy as np

from fedpace.core.record import ParticipantRecord, RoundRecord


def make_record(index, clients, weights, updates, rank=4, head=0):
    """A round in which the clients sent these update vectors; the last `head` entries are head."""
    updates = np.asarray(updates, dtype=np.float64)
    total = np.asarray(weights) @ updates  # zeros where nobody joined

    def norms(vector):
        lora, tail = np.split(vector, [len(vector) - head])
        return float(lora @ lora), float(tail @ tail)

    people = tuple(
        ParticipantRecord(
            client=int(n), sketch_rank=rank, weight=float(w), download_bytes=0, upload_bytes=1000,
            start_seconds=1.0, upload_seconds=1.0, bandwidth_hz=1e3, train_loss=1.0,
            lora_squared_norm=norms(u)[0], head_squared_norm=norms(u)[1],
        )
        for n, w, u in zip(clients, weights, updates, strict=True)
    )  # fmt: skip
    lora, tail = norms(total)
    return RoundRecord("known", index, 0.0, 0.0, people, 0, 0, None, lora, tail)


class KnownNoise:
    """N clients whose updates are normal around m_n = common + own direction, tr(cov) = sd_n^2."""

    rank = 4

    def __init__(self, count=50, size=200, apart=1.0, noise=1.0, spread=0.4, seed=0):
        rng = np.random.default_rng(seed)
        weight = rng.lognormal(0.0, 0.8, count)
        common = rng.normal(size=size)
        self.data_weight = weight / weight.sum()
        self.mean = common / np.linalg.norm(common)
        self.mean = self.mean + apart * rng.normal(size=(count, size)) / np.sqrt(size)
        self.sd = noise * rng.lognormal(0.0, spread, count)
        shape = np.linspace(0.2, 2.0, size)  # not isotropic
        self.shape = shape / np.linalg.norm(shape)
        self.second_moment = (self.mean**2).sum(axis=1) + self.sd**2

    @property
    def v_full(self):
        return float(self.data_weight**2 @ self.second_moment)

    @property
    def cross_product(self):
        gram = (self.mean * self.data_weight[:, None]) @ (self.mean * self.data_weight[:, None]).T
        return float(gram.sum() - np.trace(gram))

    @property
    def ratio(self):
        return self.v_full / self.cross_product

    def rounds(self, q, count, rng, scale=1.0, noise=1.0):
        """Records of rounds in which client n joins with probability q_n."""
        for index in range(count):
            joined = np.flatnonzero(rng.random(len(self.sd)) < q)
            scatter = (
                self.sd[joined, None] * self.shape * rng.normal(size=(len(joined), len(self.shape)))
            )
            updates = scale * (self.mean[joined] + noise * scatter)
            yield make_record(index, joined, self.data_weight[joined] / q[joined], updates)
