"""What a run cost its clients of their privacy, in sentences."""

from fedpace.run_folder.schema import Run


def privacy_notes(run: Run) -> list[str]:
    """Return a note for each method that kept its clients private.

    Args:
        run: what the folder holds.
    """
    notes = []
    for name, entry in run.summary["methods"].items():
        if "epsilon_client" not in entry:
            continue
        if entry["epsilon_max"] is None:
            notes.append(f"{name} cut its clients' updates and added no noise: no privacy.")
            continue
        who = str(run.clients.client_id[int(entry["epsilon_client"])])
        note = (
            f"Privacy of {name}: whoever sees its adapters learns of a client's examples no more "
            f"than epsilon = {entry['epsilon_max']:.3g} at delta = {entry['delta']:g} allows "
            f"(client {who}; the median client {entry['epsilon_median']:.3g})."
        )
        if entry["ended_for_privacy"] is not None:
            note += (
                f" It ended after round {entry['ended_for_privacy']}: one more would have passed "
                "max_epsilon."
            )
        notes.append(note)
    return notes
