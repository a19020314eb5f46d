"""Known bugs put back one at a time into a copy of the package: the suite must fail for each, in the test named beside it.

The test is the only one that runs. They lie in the normal suite but for those in tests/faults, which are rows of the
fault matrix; this file itself is one of the long rows (`pytest -m faults`).
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import ROOT, run

FAULTS = "tests/faults"


@dataclass(frozen=True)
class Canary:
    """A bug: in `file`, `good` (which occurs once) becomes `bad`, and `test` must see it."""

    file: str
    good: str
    bad: str
    test: str


CANARIES = {
    "hook leak": Canary(
        "segkd/models/taps.py",
        "            yield found\n        finally:\n            for handle in handles:\n                handle.remove()",
        "            yield found\n        finally:\n            pass",
        f"{FAULTS}/test_players.py::test_no_hook_is_left_behind[ddad.segkd]",
    ),
    "balance over N only": Canary(
        "segkd/losses/priors.py", ".mean(dim=(0, 2, 3))", ".mean(dim=0)",
        "tests/losses/test_priors.py::test_balance_averages_over_the_pixels_not_over_the_batch_alone",
    ),
    "ignore forgotten": Canary(
        "segkd/evaluation/metrics.py", "flatten(1).clamp(max=count)", "flatten(1).clamp(max=count - 1)",
        "tests/evaluation/test_metrics.py::test_a_perfect_prediction_scores_one",
    ),
    "ignore falsy": Canary(
        "segkd/data/description.py", "else list(self.ignore)]", "else [i for i in self.ignore if i]]",
        "tests/data/sets/test_folder.py::test_the_table_of_ids_is_the_map_spelt_out",
    ),
    # The moves' seeds are counted from where the process began, not from where the run did.
    "seed reset on resume": Canary(
        "segkd/synthesis/source.py",
        "torch.manual_seed(seed_for(self.seed, self.step, self.index, stream + place))",
        'Move.begun = getattr(Move, "begun", -1) + 1\n'
        "        torch.manual_seed(seed_for(self.seed, Move.begun, 0, stream + place))",
        f"{FAULTS}/test_resume.py::test_resumed_after_any_step[ddad.segkd]",
    ),
    "average not restored": Canary(
        "segkd/players/player.py", 'self.average.load_state_dict(state["average"])', "pass",
        f"{FAULTS}/test_resume.py::test_resumed_after_any_step[ddad.segkd]",
    ),
    "looking moves running statistics": Canary(
        "segkd/synthesis/generator.py", "with untouched_statistics(network):", "with torch.no_grad():",
        f"{FAULTS}/test_resume.py::test_looking_writing_and_saving_change_nothing[ddad.segkd]",
    ),
    "teacher in train mode": Canary(
        "segkd/models/teacher.py", "self.eval()", "nn.Module.train(self)",
        f"{FAULTS}/test_players.py::test_the_teacher_is_not_touched[ddad.segkd]",
    ),
    "batchmean KL": Canary(
        "segkd/losses/discrepancy.py", "(log_p - log_q)).sum(dim=1).mean()", "(log_p - log_q)).sum() / len(log_p)",
        "tests/losses/test_discrepancy.py::test_a_mean_over_pixels_does_not_know_the_size",
    ),
    "no hash": Canary(
        "segkd/training/checkpoint.py", "if sha256(data) != match[2]:", "if not data:",
        f"{FAULTS}/test_damage.py::test_one_flipped_bit",
    ),
    "no sync": Canary(
        "segkd/foundation/files.py", "        file.flush()\n        os.fsync(file.fileno())\n", "        file.flush()\n",
        "tests/foundation/test_files.py::test_file_and_folder_are_synced_in_order",
    ),
    "no lock": Canary(
        "segkd/foundation/files.py", "self._lock.acquire()", "pass",
        f"{FAULTS}/test_storage.py::test_of_two_processes_one_goes_on",
    ),
    "stopped without saving": Canary(
        "segkd/training/loop.py",
        "            if self.plan.due(self.plan.save_every, self.at.step) or ends or self.stop():\n",
        "            if self.plan.due(self.plan.save_every, self.at.step) or ends:\n",
        "tests/training/test_loop.py::test_a_resumed_run_equals_the_uninterrupted_one[4-15]",
    ),
    "refused move leaves its statistics": Canary(
        "segkd/players/player.py", "            buffers.put_back()\n", "",
        "tests/training/test_distiller.py::test_running_statistics_that_a_nan_forward_wrote_are_put_back[student]",
    ),
    "maps compared at another temperature": Canary(
        "segkd/methods/terms/cwd.py", '"temperature": 4.0', '"temperature": 1.0',
        "tests/training/test_moves.py::test_maps_are_compared_at_temperature_4",
    ),
    "another pace of refining": Canary(
        "segkd/synthesis/pixels.py", "PACE = 0.08", "PACE = 0.04",
        "tests/synthesis/test_pixels.py::test_the_steps_are_those_of_adam_on_logits_of_the_unit_range[1]",
    ),
    "the bank draws by the student's stream": Canary(
        "segkd/training/distiller.py", 'ranks.stream("replay")', 'ranks.stream("student")',
        "tests/training/test_moves.py::test_a_student_draws_from_the_bank_by_a_stream_of_its_own",
    ),
    "keep moves by the live generator": Canary(
        "segkd/synthesis/generator.py", "self.network if self.player is None else self.player.ema_or_live", "self.network",
        "tests/training/test_moves.py::test_images_that_are_only_kept_are_by_the_average_where_there_is_one[0.9]",
    ),
    "collages for ever": Canary(
        "segkd/synthesis/source.py", "self.augment(images, move.progress)", "self.augment(images)",
        "tests/training/test_moves.py::test_collages_end_where_the_recipe_says",
    ),
    "held-out images that a move has used": Canary(
        "segkd/training/monitor.py", "move = Move(self.sampling.seed, HELD_OUT, index)", "move = Move(self.sampling.seed, 0, index)",
        "tests/training/test_distiller.py::test_held_out_images_are_nobody_elses",
    ),
    "a distance of NaN is no divergence": Canary(
        "segkd/training/monitor.py", "not far <= ASTRAY", "far > ASTRAY",
        "tests/training/test_moves.py::test_a_student_whose_numbers_are_none_has_diverged",
    ),
    "NYUv2 mirrored": Canary(
        "segkd/data/sets/nyuv2.py",
        "images[frame - 1].transpose(2, 1, 0), labels[frame - 1].T",
        "np.rot90(images[frame - 1], -1, (1, 2)).transpose(1, 2, 0), np.rot90(labels[frame - 1], -1)",
        "tests/data/sets/test_nyuv2.py::test_both_layouts_give_what_was_seen[40]",
    ),
}  # fmt: skip


def test_every_bug_can_still_be_put_back() -> None:
    """A canary whose line or test is gone proves nothing; here that shows before the long rows run."""
    assert len(CANARIES) >= 12
    for canary in CANARIES.values():
        assert (ROOT / canary.file).read_text().count(canary.good) == 1, canary
        file, _, test = canary.test.partition("::")
        assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text(), canary


@pytest.mark.faults
@pytest.mark.row("P2", 1)
@pytest.mark.parametrize("name", CANARIES)
def test_the_bug_is_caught(row, copy: Path, name: str) -> None:
    canary = CANARIES[name]
    text = (copy / canary.file).read_text()
    assert text.count(canary.good) == 1
    (copy / canary.file).write_text(text.replace(canary.good, canary.bad))
    done = run(copy, "-qx", "-m", "", canary.test)
    assert done.returncode == 1, done.stdout + done.stderr
    failed = re.search(
        rf"^FAILED {re.escape(canary.test)} - (assert|AssertionError|Failed|segkd\.foundation\.errors)",
        done.stdout,
        re.MULTILINE,
    )
    assert failed and "1 failed" in done.stdout, done.stdout
    row.count()


@pytest.mark.faults
def test_without_a_bug_all_of_them_pass(copy: Path) -> None:
    tests = {canary.test for canary in CANARIES.values()}
    done = run(copy, "-qx", "-m", "", *tests)
    assert done.returncode == 0 and f"{len(tests)} passed" in done.stdout, done.stdout + done.stderr
