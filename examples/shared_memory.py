"""Two agents, two processes, one memory: each sees at once what the other recorded, and nothing gets lost.

    python examples/shared_memory.py notes.db

A researcher reads a page line by line and records facts with their source. A writer waits for facts, and writes a
sentence about each. At the end the memory says where each sentence comes from. No model is involved, so that it runs
anywhere; put one where `summary` is.
"""

import multiprocessing
import sys
import time

from raeburnmemory import MemoryGraph

PAGE = """\
Greta | founded | the harbour clinic in 1987
The harbour clinic | closes at | seven in the evening
Ines | is | the sister of Ana
Ana | is allergic to | peanuts
"""


def researcher(path):
    """Record each line, and the fact that it states."""
    with MemoryGraph(path, embedding_model="builtin") as memory:
        for number, line in enumerate(PAGE.splitlines()):
            source = memory.add_message(line, "user", "page", id=f"line-{number}", name="page")
            memory.fact(*(part.strip() for part in line.split("|")), id=f"fact-{number}", source=source.prompt)
            time.sleep(0.05)
        memory.put([{"id": "done", "type": "note", "text": "The page is read."}])


def summary(fact):
    return f"{fact.text}."


def writer(path):
    """Write a sentence about each fact as soon as it is there."""
    written = set()
    with MemoryGraph(path, embedding_model="builtin") as memory:
        while True:
            finished = "done" in memory  # looked at first: what was recorded before it is seen below
            for fact in memory.facts():
                if fact.id not in written:
                    text = f"text-{fact.id}"
                    memory.put(
                        [{"id": text, "type": "response", "text": summary(fact)}], [(text, fact.id, "derived_from")]
                    )
                    written.add(fact.id)
            if finished:
                return
            time.sleep(0.02)


def main(path):
    with MemoryGraph(path, embedding_model="builtin"):  # so that both find it
        pass
    both = [multiprocessing.get_context("spawn").Process(target=work, args=(path,)) for work in (writer, researcher)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        if process.exitcode:
            sys.exit(f"An agent ended with {process.exitcode}.")
    with MemoryGraph(path) as memory:
        for node in memory.nodes("response"):
            fact = memory.neighbours(node.id, "derived_from")[0]
            line = memory.neighbours(fact.id, "derived_from")[0]
            print(f"{node.text}  <- {fact.id} <- {line.id}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "shared.db")
