"""A server with the part of Qdrant's REST interface that the index uses, for tests of what happens on the way to one.

It is not Qdrant. Paths, bodies and answers have the shape that qdrant-client 1.20 sends and reads, which are generated
from Qdrant's OpenAPI description; bodies are checked by its models, which refuse unknown fields. What the requests
mean is left to Qdrant's own local mode. Approximate search, shards and payload indexes are not in it: with
`RAEBURN_TEST_QDRANT_URL` the same tests ask a real server.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, TypeAdapter
from qdrant_client import QdrantClient, models

_POINTS = TypeAdapter(models.PointInsertOperations)
_FIELDS = TypeAdapter(models.CreateFieldIndex)


def _plain(value):
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    return [_plain(one) for one in value] if isinstance(value, list) else value


class Server:
    """Serves from a thread until it is stopped, and again from the same port and with the same contents after that."""

    def __init__(self, api_key=None):
        self.local = QdrantClient(":memory:")
        self.api_key, self.port, self._server = api_key, 0, None
        self.asked, self.delay, self.created = Counter(), 0.0, {}
        self.written, self.vectors, self.params = 0, 0, None  # points with vectors, in and out; of the last search
        self.failures = []  # statuses of the next answers
        self.fail_after = None  # so many more requests are answered, then the status
        self.stalled = threading.Event()
        self.stalled.set()
        self._lock = threading.Lock()
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    status, content = outer.respond(self.command, self.path, self.headers, body)
                    content = json.dumps(content).encode()
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # nobody waited for it

            do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def close(self):
        self.stop()
        self.stalled.set()
        self.local.close()

    def respond(self, method, target, headers, body):
        """Return status and content as Qdrant words them."""
        parts = urlsplit(target)
        path = [unquote(part) for part in parts.path.strip("/").split("/")]
        what = "/".join([method, *("*" if at == 1 and part != "aliases" else part for at, part in enumerate(path))])
        self.asked[what] += 1
        time.sleep(self.delay)
        self.stalled.wait(60)
        if self.api_key is not None and headers.get("api-key") != self.api_key:
            return 401, "Must provide an API key or an Authorization bearer token"
        if self.fail_after is not None:
            self.fail_after[0] -= 1
            if self.fail_after[0] < 0:
                return self.fail_after[1], {"status": {"error": "Service internal error: told to fail"}, "time": 0.0}
        if self.failures:
            return self.failures.pop(0), {"status": {"error": "Service internal error: told to fail"}, "time": 0.0}
        with self._lock:
            try:
                result = self._result(what, path, body, parse_qs(parts.query))
            except (ValueError, KeyError) as exc:
                missing = "not found" in str(exc)
                said = f"Not found: Collection `{path[1]}` doesn't exist!" if missing else f"Wrong input: {exc}"
                return (404 if missing else 400), {"status": {"error": said}, "time": 0.0}
        return 200, {"usage": None, "result": _plain(result), "status": "ok", "time": 0.001}

    def _result(self, what, path, body, options):
        local, name = self.local, path[1] if len(path) > 1 else None
        if what == "GET/collections":
            return local.get_collections()
        if what == "PUT/collections/*":
            asked = models.CreateCollection.model_validate_json(body)
            self.created[name] = asked
            return local.create_collection(name, vectors_config=asked.vectors)
        if what == "DELETE/collections/*":
            return local.delete_collection(name)
        if what == "POST/collections/aliases":
            operations = models.ChangeAliasesOperation.model_validate_json(body)
            return local.update_collection_aliases(operations.actions)
        if what == "PUT/collections/*/index":
            _FIELDS.validate_json(body)
            return (
                local._client._default_update_result() if local.collection_exists(name) else local.get_collection(name)
            )
        if what == "PUT/collections/*/points":
            asked = _POINTS.validate_json(body)
            assert options["wait"] == ["true"]
            self.written += len(asked.batch.ids) if isinstance(asked, models.PointsBatch) else 0
            return local.upsert(name, asked.batch if isinstance(asked, models.PointsBatch) else asked.points)
        if what == "POST/collections/*/points":
            asked = models.PointRequest.model_validate_json(body)
            self.vectors += len(asked.ids) if asked.with_vector else 0
            return local.retrieve(name, asked.ids, asked.with_payload, asked.with_vector)
        if what == "POST/collections/*/points/delete":
            return local.delete(name, models.PointIdsList.model_validate_json(body))
        if what == "POST/collections/*/points/batch":
            operations = models.UpdateOperations.model_validate_json(body).operations
            return local.batch_update_points(name, operations)
        if what == "POST/collections/*/points/count":
            return local.count(name, models.CountRequest.model_validate_json(body).filter)
        if what == "POST/collections/*/points/scroll":
            asked = models.ScrollRequest.model_validate_json(body)
            points, after = local.scroll(
                name,
                limit=asked.limit,
                offset=asked.offset,
                with_payload=asked.with_payload,
                with_vectors=asked.with_vector,
            )
            return {"points": _plain(points), "next_page_offset": after}
        if what == "POST/collections/*/points/query":
            asked = models.QueryRequest.model_validate_json(body)
            assert asked.params is not None
            self.params = asked.params
            query = asked.query.nearest if isinstance(asked.query, models.NearestQuery) else asked.query
            found = local.query_points(
                name,
                query=query,
                using=asked.using,
                query_filter=asked.filter,
                limit=asked.limit,
                score_threshold=asked.score_threshold,
                with_payload=asked.with_payload,
                with_vectors=asked.with_vector,
            )
            self.vectors += len(found.points) if asked.with_vector else 0
            return found
        raise ValueError(f"no such request: {what}")
