"""Work shared among joblib's threads; joblib is loaded where more than one of them works."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Result = TypeVar("Result")


class Workers:
    """Runs calls in joblib's threads, or in the calling thread where there is one worker alone.

    A context manager that holds the threads; one thread may use it at a time.

    Args:
        n_jobs: as in joblib: 1 works in the calling thread, -1 is a thread a core.

    Attributes:
        count: how many there are.

    Example:
        >>> with Workers(2) as workers:
        ...     workers.run(pow, [(2, 3), (3, 2)])
        [8, 9]
    """

    def __init__(self, n_jobs: int = 1) -> None:
        self.count = 1
        self._parallel: Any = None
        if n_jobs != 1:
            from joblib import Parallel, effective_n_jobs

            self.count = effective_n_jobs(n_jobs)
            self._parallel = Parallel(n_jobs=self.count, prefer="threads")

    def __enter__(self) -> Workers:
        if self._parallel is not None:
            self._parallel.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._parallel is not None:
            self._parallel.__exit__(*error)

    def run(
        self, function: Callable[..., Result], calls: Iterable[tuple[Any, ...]]
    ) -> list[Result]:
        """Results of the function for each tuple of arguments, in their order."""
        if self._parallel is None:
            return [function(*arguments) for arguments in calls]
        return list(self._parallel((function, arguments, {}) for arguments in calls))
