"""A chatbot that remembers: what was said in earlier conversations comes back when it matters.

    python examples/chatbot.py --memory chat.db --model openai:http://127.0.0.1:8080/v1

Each line that you type is a turn; an empty line ends the conversation. The model may be anything that speaks OpenAI's
protocol; with a llamafile or llama.cpp on this machine nothing leaves it.
"""

import argparse
import sys
import uuid

from raeburnmemory import MemoryGraph
from raeburnmemory.hub import open_client

INSTRUCTIONS = "You are a helpful assistant. Answer briefly. If the notes do not say it, say that you do not know."
BUDGET = 600  # tokens for what is remembered
TURNS = 6  # messages of this conversation that always go along


def answer(memory, client, session, question):
    """Ask the model with what the memory holds for the question, and record both."""
    # What was said here goes along word for word, so only other conversations are searched.
    notes = memory.context(question, budget=BUDGET, where={"chat": {"ne": session}}) if len(memory) else ""
    messages = [{"role": "system", "content": f"{INSTRUCTIONS}\n\n{notes}".strip()}]
    said = memory.thread(session)[-TURNS:] if session in memory else []
    roles = {"prompt": "user", "response": "assistant"}
    messages += [{"role": roles[node.kind], "content": node.text} for node in said]
    messages.append({"role": "user", "content": question})
    reply = client.chat(messages, max_tokens=300)
    memory.add_interaction(question, reply.text, agent="assistant", session_id=session, metadata={"chat": session})
    return reply.text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", default="chat.db")
    parser.add_argument("--model", default="openai:http://127.0.0.1:8080/v1")
    given = parser.parse_args()
    session = f"chat-{uuid.uuid4().hex[:8]}"
    with MemoryGraph(given.memory, embedding_model="builtin") as memory, open_client(given.model) as client:
        for line in sys.stdin:
            if not line.strip():
                break
            print(answer(memory, client, session, line.strip()), flush=True)


if __name__ == "__main__":
    main()
