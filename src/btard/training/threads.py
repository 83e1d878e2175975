"""A trainer for programs that do not run on trio: in a thread of its own."""

import asyncio
import concurrent.futures

import trio

from btard.training.trainer import Trainer, TrainingResult


def run_in_thread(trainer: Trainer) -> concurrent.futures.Future[TrainingResult]:
    """Begin training in a new thread; ``result()`` waits for the end, ``trainer.stop()`` brings it about."""
    executor = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="btard-trainer")
    future = executor.submit(trio.run, trainer.run)
    executor.shutdown(wait=False)
    return future


async def run_in_asyncio(trainer: Trainer) -> TrainingResult:
    """Train to the end without blocking the asyncio loop; if cancelled, the trainer stops and saves first."""
    future = run_in_thread(trainer)
    try:
        return await asyncio.shield(asyncio.wrap_future(future))
    except asyncio.CancelledError:
        trainer.stop()
        await asyncio.to_thread(concurrent.futures.wait, [future])
        raise
