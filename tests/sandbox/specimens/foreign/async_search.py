"""Asynchronous successive halving (ASHA) as an async search loop."""

import asyncio
import heapq
from typing import AsyncIterator, Awaitable, Callable


class AsyncHalving:
    def __init__(self, evaluate: Callable[[dict, float], Awaitable[float]], eta: int = 3, workers: int = 4):
        self.evaluate = evaluate
        self.eta = eta
        self.queue: asyncio.Queue = asyncio.Queue()
        self.semaphore = asyncio.Semaphore(workers)
        self.results: list[tuple[float, int, dict]] = []

    async def _run_one(self, index: int, config: dict, budget: float) -> None:
        async with self.semaphore:
            loss = await self.evaluate(config, budget)
            heapq.heappush(self.results, (loss, index, config))

    async def run(self, configs: list[dict], budget: float = 30.0) -> AsyncIterator[dict]:
        while configs:
            await asyncio.gather(*(self._run_one(i, c, budget) for i, c in enumerate(configs)))
            keep = max(1, len(configs) // self.eta)
            configs = [c for _, _, c in heapq.nsmallest(keep, self.results)]
            self.results.clear()
            for c in configs:
                yield c
            if keep == 1:
                break
            budget *= self.eta


def main():
    asyncio.run(AsyncHalving(None).run([]).__anext__())


if __name__ == "__main__":
    main()
