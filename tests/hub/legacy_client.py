"""Every call of the Memory Cache browser client, sent as it sends it, with what it reads in the answers.

The client is compiled code in a browser: a page of http://localhost:4444 whose calls are same-origin. Its GETs carry
no Origin, its POSTs and DELETEs carry one; calls with parameters have them in the address and neither a body nor a
content type; it sends no header of its own. Each method asserts what the client takes for granted, and returns what
it would show.
"""

import json
import uuid
from urllib.parse import urlencode

from hub_server import send

BROWSER = {
    "Accept": "*/*",
    "Accept-Language": "en-GB,en;q=0.5",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:124.0) Gecko/20100101 Firefox/124.0",
}
STATES = {"absent", "downloading", "idle", "running", "error"}


def is_whole(value):
    return type(value) is int


class LegacyClient:
    """The client, on the page of the hub at *port*, with the cookie that the page was given."""

    def __init__(self, port, cookie=None):
        self.port, self._cookie = port, cookie
        self.origin = f"http://localhost:{port}"

    # --- how it sends -------------------------------------------------------------------------------------------

    def _call(self, method, name, query=None, *, body=None, kind=None):
        headers = dict(BROWSER)
        if self._cookie is not None:
            headers["Cookie"] = self._cookie
        if method != "GET":
            headers["Origin"] = self.origin
        if kind is not None:
            headers["Content-Type"] = kind
        elif method == "POST":
            body = b""  # browsers send Content-Length: 0
        path = f"/api/v1/{name}" + (f"?{urlencode(query)}" if query else "")
        return send(self.port, method, path, headers, body)

    def _ok(self, *args, **kwargs):
        answer = self._call(*args, **kwargs)
        assert answer.status == 200, (answer.status, answer.body)
        assert answer.headers["content-type"].startswith("application/json")
        return answer.json()

    def _json(self, name, data):
        return self._ok("POST", name, body=json.dumps(data).encode(), kind="application/json")

    def missing(self, method, name, query):
        """Make a call about something that is not there; the client survives a 404 with a detail."""
        answer = self._call(method, name, query)
        assert answer.status == 404, answer.body
        assert isinstance(answer.json()["detail"], str)

    @staticmethod
    def _done(said, good="ok"):
        assert said["status"] in {good, "error"}
        if said["status"] == "error":
            assert isinstance(said["message"], str)
            assert said["message"]
        return said

    # --- projects -----------------------------------------------------------------------------------------------

    def list_projects(self):
        found = self._ok("GET", "list_projects")
        assert set(found) == {"projects"}
        for one in found["projects"]:
            self._project(one)
            assert one["is_removed"] is False
        return found["projects"]

    @staticmethod
    def _project(one):
        assert set(one) == {"id", "name", "is_removed"}
        assert is_whole(one["id"])
        assert isinstance(one["name"], str)
        assert isinstance(one["is_removed"], bool)
        return one

    def create_project(self, name):
        found = self._ok("POST", "create_project", {"project_name": name})
        assert set(found) == {"projects"}
        [made] = found["projects"]
        return self._project(made)

    def update_project(self, project_id, name):
        return self._project(self._ok("POST", "update_project", {"project_id": project_id, "project_name": name}))

    def delete_project(self, project_id):
        return self._done(self._ok("DELETE", "delete_project", {"project_id": project_id}))

    def create_project_directory(self, project_id, path):
        said = self._ok("POST", "create_project_directory", {"project_id": project_id, "path": path})
        return self._done(said) if "status" in said else self._directory(said)

    @staticmethod
    def _directory(one):
        assert set(one) == {"id", "path", "project_id", "is_removed"}
        assert is_whole(one["id"])
        assert is_whole(one["project_id"])
        return one

    def list_project_directories(self, project_id):
        found = self._ok("GET", "list_project_directories", {"project_id": project_id})
        assert isinstance(found, list)
        return [self._directory(one) for one in found]

    def delete_project_directory(self, directory_id):
        return self._directory(self._ok("DELETE", "delete_project_directory", {"directory_id": directory_id}))

    # --- files --------------------------------------------------------------------------------------------------

    def upload_file(self, project_name, file_path, data):
        boundary = f"----WebKitFormBoundary{uuid.uuid4().hex[:16]}"
        parts = [("project_name", None, project_name.encode()), ("file_path", None, file_path.encode())]
        parts.append(("file", "blob", data))
        body = b""
        for name, filename, value in parts:
            more = f'; filename="{filename}"\r\nContent-Type: application/octet-stream' if filename else ""
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
            body += head.encode() + value + b"\r\n"
        body += f"--{boundary}--\r\n".encode()
        return self._done(self._ok("POST", "upload_file", body=body, kind=f"multipart/form-data; boundary={boundary}"))

    def list_project_files(self, project_id):
        found = self._ok("GET", f"list_project_files/{project_id}")
        assert isinstance(found, list)
        assert all(isinstance(path, str) for path in found)
        return found

    @staticmethod
    def shown(path):
        """Return what the client shows for a path of a file in a directory."""
        return "/" + "/".join(path.split("__")[1:])

    def sync_project_files(self, project_id):
        return self._done(self._ok("POST", "sync_project_files", {"project_id": project_id}))

    # --- documents ----------------------------------------------------------------------------------------------

    def ingest_project_files(self, project_id):
        said = self._ok("POST", "ingest_project_files", {"project_id": project_id})
        if "status" in said:
            return self._done(said)
        assert is_whole(said["num_files"])
        assert is_whole(said["num_fragments"])
        return said

    def check_ingestion_status(self, project_id):
        said = self._ok("POST", "check_ingestion_status", {"project_id": project_id})
        assert said["status"] == "ok"
        assert isinstance(said["message"], str)
        assert isinstance(said["isIngesting"], bool)
        return said["isIngesting"]

    # --- finding and asking -------------------------------------------------------------------------------------

    def rag_ask(self, project_id, prompt):
        said = self._json("rag_ask", {"project_id": project_id, "prompt": prompt})
        if said["status"] == "ok":
            assert isinstance(said["response"], str)
            assert said["message"] is None
        return self._done(said)

    def vector_db_query(self, project_id, prompt):
        found = self._json("vector_db_query", {"project_id": project_id, "prompt": prompt})
        assert isinstance(found, list)
        assert len(found) <= 10
        for one in found:
            assert set(one) == {"file_path", "file_content", "distance"}
            assert isinstance(one["distance"], (int, float))
            one["distance"].__format__(".4f")  # the client calls toFixed
        assert [one["distance"] for one in found] == sorted(one["distance"] for one in found)
        return found

    def check_waiting_for_chat_status(self, project_id):
        said = self._ok("POST", "check_waiting_for_chat_status", {"project_id": project_id})
        assert said["status"] == "ok"
        assert isinstance(said["message"], str)
        assert isinstance(said["isWaiting"], bool)
        return said["isWaiting"]

    def summarize_file(self, project_id, file_path):
        said = self._json("summarize_file", {"project_id": project_id, "file_path": file_path})
        assert set(said) == {"status", "project_name", "summary_file_path", "summary", "message"}
        return self._done(said)

    # --- models -------------------------------------------------------------------------------------------------

    def list_llamafiles(self):
        found = self._ok("GET", "list_llamafiles")
        assert isinstance(found, list)
        return [self._llamafile(one) for one in found]

    @staticmethod
    def _llamafile(one):
        assert set(one) == {"model", "size", "license", "license_url", "filename", "url"}
        assert all(isinstance(value, str) for value in one.values())
        return one

    def check_llamafile_status(self, filename):
        said = self._ok("POST", "check_llamafile_status", {"llamafile_filename": filename})
        assert set(said) == {"status", "message", "progress", "content_length", "written"}
        assert said["status"] in STATES
        if said["status"] == "downloading":
            assert is_whole(said["progress"])
            assert 0 <= said["progress"] <= 100
        return said["status"]

    def _model(self, method, name, filename):
        return self._done(self._ok(method, name, {"llamafile_filename": filename}), good="success")

    def download_llamafile_by_name(self, filename):
        return self._model("POST", "download_llamafile_by_name", filename)

    def start_llamafile(self, filename):
        return self._model("POST", "start_llamafile", filename)

    def stop_llamafile(self, filename):
        return self._model("POST", "stop_llamafile", filename)

    def delete_llamafile(self, filename):
        return self._model("DELETE", "delete_llamafile", filename)

    def running_llamafile_info(self):
        said = self._ok("GET", "running_llamafile_info")
        return None if said is None else self._llamafile(said)
