"""What can be asked, and what is answered, as the OpenAPI document describes it.

Bodies name nothing but what is stored and searched for: never a model, a file or a setting.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ContextAsked",
    "ContextFound",
    "Exchange",
    "ForgetAsked",
    "Forgotten",
    "HitsFound",
    "Interaction",
    "Message",
    "Neighbours",
    "Nodes",
    "ProblemShown",
    "RecallAsked",
    "RecordedAll",
    "Session",
    "Sessions",
    "SimilarAsked",
    "SimilarFound",
    "SimilarWanted",
]

MOST = 1000  # of what is asked for at once
_TEXT = 200_000  # letters of a question

Names = str | list[str]
JsonObject = dict[str, Any]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Said(_Asked):
    """A prompt or a response, and what else is to be kept with it."""

    model_config = ConfigDict(extra="allow", strict=True)

    id: str | None = Field(None, description="Made if left out.")
    text: str
    timestamp: str | None = Field(None, description="ISO 8601; now if left out.")


class Who(_Asked):
    """An agent, and what else is to be kept with it."""

    model_config = ConfigDict(extra="allow", strict=True)

    id: str
    name: str | None = None


class Interaction(_Asked):
    """What was asked, and maybe what was answered, by whom and in which session."""

    prompt: str | Said
    response: str | Said | None = None
    agent: str | Who | None = None
    session_id: str | None = None
    timestamp: str | None = Field(None, description="Of what has none of its own: ISO 8601; now if left out.")
    metadata: JsonObject | None = Field(None, description="Kept with the prompt and the response.")
    vector: list[float] | None = Field(
        None, description="Of the prompt, if it was embedded elsewhere by the same model."
    )


class Message(_Asked):
    """One message of a chat."""

    text: str
    role: str = Field("user", description="user, assistant, system or tool.")
    session_id: str | None = None
    name: str | None = Field(None, description="Who spoke.")
    id: str | None = Field(None, description="Made if left out.")
    timestamp: str | None = Field(None, description="ISO 8601; now if left out.")
    metadata: JsonObject | None = None
    vector: list[float] | None = Field(None, description="If it was embedded elsewhere by the same model.")


class ForgetAsked(_Asked):
    """What is to be forgotten: what all of these mean together; see `MemoryGraph.forget`."""

    ids: list[str] | None = None
    session: str | None = None
    agent: str | None = None
    before: str | float | None = None
    where: JsonObject | None = Field(None, description='A condition on attributes: {"stars": {"gte": 4}}.')
    secure: bool = False
    backups: bool = False


Messages = Annotated[list[Message], Field(min_length=1, max_length=MOST)]
Interactions = Annotated[list[Interaction], Field(min_length=1, max_length=MOST)]


class _Among(_Asked):
    kinds: Names | None = None
    session: Names | None = None
    agent: Names | None = None
    speaker: Names | None = None
    collection: Names | None = None
    since: str | float | None = Field(None, description="Inclusive: ISO 8601, or seconds since 1970.")
    until: str | float | None = Field(None, description="Exclusive.")
    where: JsonObject | None = Field(None, description='A condition on attributes: {"stars": {"gte": 4}}.')


class SimilarWanted(_Among):
    """A text or a vector, and what may be found for it; kinds are prompts if left out; see `MemoryGraph.similar`."""

    text: str | None = Field(None, min_length=1, max_length=_TEXT)
    vector: list[float] | None = Field(None, min_length=1, max_length=16_384)
    k: int = Field(5, ge=1, le=MOST)


class MatchingWanted(_Among):
    """Words, and what may be found for them; see `MemoryGraph.matching`."""

    words: str = Field(min_length=1, max_length=_TEXT)
    every: bool = Field(False, description="Only texts that hold all of them.")
    k: int = Field(10, ge=1, le=MOST)


class _Search(_Among):
    query: str = Field(min_length=1, max_length=_TEXT)
    legs: Names | None = None
    min_similarity: float | None = Field(None, ge=0, le=1)
    min_coverage: float | None = Field(None, ge=0, le=1)
    recency: float = Field(0.0, ge=0, le=1)
    half_life: float = Field(30.0, gt=0, description="Days in which newness halves.")
    diversity: float = Field(0.0, ge=0, le=1)
    fold: bool = False
    now: str | float | None = Field(None, description='From when "last week" is seen.')


class RecallAsked(_Search):
    """A question, and what may be found for it; see `MemoryGraph.recall`."""

    k: int = Field(10, ge=1, le=MOST)


class ContextAsked(_Search):
    """A question, and how much text may come for it; see `MemoryGraph.context`."""

    budget: int = Field(1000, ge=0, le=1_000_000, description="Tokens, estimated.")
    k: int = Field(20, ge=1, le=MOST)
    neighbours: int = Field(1, ge=0, le=20)
    order: Literal["conversation", "score"] = "conversation"


class SimilarAsked(BaseModel):
    """As in the original: whatever else is in the body is passed over."""

    text: str
    top_k: int = Field(5, ge=0, le=MOST)


class _Answered(BaseModel):
    model_config = ConfigDict(extra="allow")


class Recorded(BaseModel):
    """The ids of one interaction."""

    prompt: str | None
    response: str | None
    agent: str | None
    session: str | None
    message: str | None = None


class RecordedAll(BaseModel):
    """The ids of what was recorded, in the order in which it came."""

    recorded: list[Recorded]


class Shown(_Answered):
    """A node: its id, its type, its text if it has one, and its attributes."""

    id: str
    type: str
    text: str | None = None


class Edge(BaseModel):
    """An edge of the graph."""

    source: str
    target: str
    relation: str
    data: JsonObject


class Exchange(BaseModel):
    """A prompt, what was answered, by whom and in which session."""

    prompt: Shown | None
    responses: list[Shown]
    agents: list[Shown]
    session: str | None


class Forgotten(BaseModel):
    """What is gone: the ids, how many nodes of each kind, how many edges and vectors."""

    ids: list[str]
    kinds: dict[str, int]
    links: int
    vectors: int


class HitFound(BaseModel):
    """A node that was found. `score` orders the hits of one search; see `raeburnmemory.hits.Hit`."""

    node: Shown
    score: float
    similarity: float | None
    coverage: float | None
    speaker: str | None
    session: str | None
    citation: str
    why: JsonObject
    duplicates: list[str]
    place: JsonObject | None


class HitsFound(BaseModel):
    """What was found, best first; which parts of the search ran, and why others did not."""

    hits: list[HitFound]
    legs: list[str]
    skipped: dict[str, str]


class ContextFound(_Answered):
    """Text for a prompt, the pieces it is made of, and what was left out; see `raeburnmemory.Context`."""

    text: str
    tokens: int
    budget: int
    estimated: bool


class Session(BaseModel):
    """What was said in a session, in order; `next` is the id to go on after."""

    id: str
    messages: list[Shown]
    next: str | None


class Sessions(BaseModel):
    """Sessions, the first written first; `next` is the id to go on after."""

    sessions: list[Shown]
    next: str | None


class Nodes(BaseModel):
    """Nodes, the first written first; `next` is the id to go on after."""

    nodes: list[Shown]
    next: str | None


class Neighbours(BaseModel):
    """What edges lead to or come from, and the edges, the oldest first."""

    nodes: list[Shown]
    edges: list[Edge]


class SimilarFound(BaseModel):
    """The ids of prompts, nearest first."""

    ids: list[str]


class ProblemShown(_Answered):
    """An error (RFC 9457): one sentence in `detail`, the kind of error in `code` where it has a name."""

    type: str
    title: str
    status: int
    detail: str
    code: str | None = None
    request_id: str
