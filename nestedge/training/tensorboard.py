"""Reports of training as TensorBoard draws them."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from nestedge.errors import MissingDependencyError
from nestedge.training.progress import Progress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes the loss, the learning rate and the levels' accuracies: a `progress` of `train`.

    A step that was written before, in a training that goes on from a checkpoint, is replaced. Use
    as a context manager.

    Args:
        folder: for `tensorboard --logdir`; is made.

    Raises:
        MissingDependencyError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError(
                "TensorBoard needs tensorboard: pip install 'nestedge[tensorboard]'"
            ) from error
        self._make = SummaryWriter
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._step = 0
        self._last = (0, 0)

    def __call__(self, report: Progress) -> None:
        """Write a report."""
        # The loop reports the last step of an epoch once more when its accuracies are known.
        is_evaluated = self._last == (report.epoch, report.step)
        self._last = (report.epoch, report.step)
        if self._writer is None:
            self._step = (report.epoch - 1) * (report.steps or 0) + report.step - 1
            self._writer = self._make(str(self._folder), purge_step=self._step + 1)
        if is_evaluated:
            for level, accuracy in report.accuracies.items():
                self._writer.add_scalar(f"accuracy/{level}", accuracy, self._step)
            return
        self._step += 1
        self._writer.add_scalar("loss", report.loss, self._step)
        self._writer.add_scalar("learning rate", report.learning_rate, self._step)

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
