"""Ranks: real processes that talk over gloo and run one function after another."""

import io
import multiprocessing
import time
import traceback

import torch
import torch.distributed as dist

TIME_LIMIT = 120


class Ranks:
    """A group of processes, started when first needed; a failure ends them, and the next call starts new ones.

    Args:
        world: how many.
        folder: where they find one another; it exists.
    """

    def __init__(self, world, folder):
        self.world, self.folder = world, folder
        self.processes, self.pipes, self.starts = [], [], 0

    def __call__(self, function, *arguments):
        """What ``function(*arguments)`` returned on each rank: tensors, numbers, lists and dicts.

        Args:
            function: defined at the top of a module; ``torch.distributed`` tells it which rank it runs on.
            *arguments: must pickle.

        Raises:
            RuntimeError: it raised on a rank; the message holds the traceback.
            TimeoutError: it hung.
        """
        if not self.processes:
            self._start()
        try:
            for pipe in self.pipes:
                pipe.send((function, arguments))
            deadline = time.monotonic() + TIME_LIMIT
            return [torch.load(io.BytesIO(data)) for data in self._answers(function, deadline)]
        except BaseException:
            self.end()
            raise

    def _start(self):
        self.starts += 1
        spawn = multiprocessing.get_context("spawn")
        rendezvous = f"file://{self.folder}/rendezvous{self.starts}"
        for rank in range(self.world):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(rank, self.world, rendezvous, theirs), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def _answers(self, function, deadline):
        answers = [None] * self.world
        while None in answers:
            for ready in multiprocessing.connection.wait(self.pipes, max(0, deadline - time.monotonic())) or [None]:
                if ready is None:
                    raise TimeoutError(f"{function.__name__} still runs after {TIME_LIMIT} s on {self.world} ranks")
                rank = self.pipes.index(ready)
                failure, answers[rank] = ready.recv()
                if failure:
                    raise RuntimeError(f"{function.__name__} on rank {rank} of {self.world}:\n{failure}")
        return answers

    def end(self):
        for process in self.processes:
            process.kill()
            process.join()
        for pipe in self.pipes:
            pipe.close()
        self.processes, self.pipes = [], []


def _serve(rank, world, rendezvous, pipe):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world)
    while True:
        function, arguments = pipe.recv()
        try:
            data = io.BytesIO()
            torch.save(function(*arguments), data)
            answer = ("", data.getvalue())
        except Exception:
            answer = (traceback.format_exc(), b"")
        pipe.send(answer)
