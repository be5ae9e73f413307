"""Who may ask a service, from where, by what name, how often and how much: the guard alone, with no framework."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ipaddress
import json
import logging
import time
import tracemalloc
from typing import ClassVar

import pytest
from asking import LOCAL, answered, ask, request

from raeburnmemory.errors import InvalidInput, StoreWriteFailed
from raeburnmemory.web import OPEN, Guard, Problem, Settings
from raeburnmemory.web import guard as guard_module
from raeburnmemory.web.limits import Limiter, client_of

KEY = "correct horse".replace(" ", "-")
AWAY = ("192.0.2.7", 8000)
PATHS = ["/", "/v1/stats", "/nothing", "//", "//healthz", "/healthz/", "/healthz//", "/Healthz", "/healthz/../v1/stats"]
PATHS += ["/%2e/healthz", "/v1/%2e%2e/healthz", "/healthz%00", "/healthz\x00", "/readyz;x", "/é", "/openapi.json"]


class Echo:
    """A service that answers with what it got, and counts how often it was asked."""

    def __init__(self, status=200):
        self.asked, self.status, self.bodies = 0, status, []

    async def __call__(self, scope, receive, send):
        self.asked += 1
        message = await receive()
        self.bodies.append(message["body"])
        assert not message["more_body"]
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})


def guarded(app=None, **settings):
    """Return a guard with these settings before *app*."""
    chosen = Settings(**settings)
    return Guard(Echo() if app is None else app, lambda: chosen)


def keyed(**more):
    return guarded(key=KEY.encode(), hosts=None, **more)


class TestKey:
    """F1, F2: nothing is answered without the key but whether the service is there."""

    WRONG: ClassVar = {
        "none": [],
        "empty": [("Authorization", "")],
        "scheme alone": [("Authorization", "Bearer")],
        "no token": [("Authorization", "Bearer ")],
        "other scheme": [("Authorization", f"Basic {KEY}")],
        "token alone": [("Authorization", KEY)],
        "prefix": [("Authorization", f"Bearer {KEY[:-1]}")],
        "longer": [("Authorization", f"Bearer {KEY}x")],
        "another case": [("Authorization", f"Bearer {KEY.upper()}")],
        "NUL behind": [("Authorization", f"Bearer {KEY}\0")],
        "tab between": [("Authorization", f"Bearer\t{KEY}")],
        "not ASCII": [("Authorization", "Bearer schlüssel")],
        "no UTF-8": [("Authorization", b"Bearer \xff\xfe")],
        "two, one right": [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer x")],
        "two, both right": [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")],
        "two in one": [("Authorization", f"Bearer {KEY}, Bearer {KEY}")],
        "other header": [("X-API-Key", KEY), ("Api-Key", KEY), ("Proxy-Authorization", f"Bearer {KEY}")],
        "cookie": [("Cookie", f"key={KEY}; Authorization=Bearer {KEY}")],
    }

    @pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
    @pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "TRACE", "DELETE", "MADEUP"])
    def test_wrong(self, headers, method):
        app = Echo()
        answer = ask(keyed(app=app), method, headers=headers, query=f"key={KEY}&access_token={KEY}".encode())
        assert (answer.status, answer["www-authenticate"], app.asked) == (401, "Bearer", 0)
        assert KEY.encode() not in answer.body
        assert answer["content-type"] == "application/problem+json"

    @pytest.mark.parametrize("path", PATHS)
    def test_every_path(self, path):
        assert ask(keyed(), path=path).status == 401

    def test_only_these_are_open(self):
        assert {"/healthz", "/readyz"} == OPEN
        for path in OPEN:
            assert ask(keyed(), path=path).status == 200

    @pytest.mark.parametrize("said", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY}", f"Bearer {KEY} "])
    def test_right(self, said):
        assert ask(keyed(), headers=[("authorization", said)]).status == 200

    def test_a_key_of_other_letters(self):
        guard = guarded(key="schlüssel".encode(), hosts=None)
        assert ask(guard, headers=[("Authorization", "Bearer schlüssel".encode())]).status == 200
        assert ask(guard, headers=[("Authorization", "Bearer schlüssel".encode("latin-1"))]).status == 401

    def test_before_the_body_is_read(self):
        answer = ask(keyed(), "POST", headers=[("Content-Length", "9999999999")], parts=[b"x"] * 9)
        assert (answer.status, answer.read) == (401, 0)

    def test_no_websocket(self):
        sent = []

        async def send(message):
            sent.append(message)

        asyncio.run(keyed()({**request(), "type": "websocket"}, None, send))
        assert sent == [{"type": "websocket.close", "code": 1008}]

    def test_compares_in_constant_time(self, monkeypatch):
        compared = []
        real = guard_module.hmac.compare_digest
        monkeypatch.setattr(guard_module.hmac, "compare_digest", lambda *both: compared.append(both) or real(*both))
        ask(keyed(), headers=[("Authorization", "Bearer é")])
        assert len(compared) == 1
        assert {type(one) for one in compared[0]} == {bytes}
        assert len({len(one) for one in compared[0]}) == 1


class TestNoKey:
    """Without a key, the service is this machine's alone."""

    @pytest.mark.parametrize(
        "server",
        [AWAY, ("0.0.0.0", 1), ("::", 1), ("2001:db8::1", 1), ("::ffff:192.0.2.7", 1), ("example.org", 80), None],
    )
    @pytest.mark.parametrize("path", ["/v1/stats", "/healthz", "/readyz", "/nothing"])
    def test_from_elsewhere(self, server, path):
        answer = ask(guarded(), path=path, server=server)
        assert answer.status == 403
        assert "RAEBURN_API_KEY" in answer.json["detail"]
        assert "RAEBURN_ALLOW_OPEN=1" in answer.json["detail"]

    @pytest.mark.parametrize(
        "server",
        [LOCAL, ("127.8.9.1", 1), ("::1", 1), ("::ffff:127.0.0.1", 1), ("testserver", 80), ("/run/memory.sock", None)],
    )
    def test_here(self, server):
        assert ask(guarded(), server=server).status == 200

    def test_open_to_everybody(self):
        assert ask(guarded(allow_open=True), server=AWAY).status == 200
        assert ask(keyed(), headers=[("Authorization", f"Bearer {KEY}")], server=AWAY).status == 200


class TestHost:
    """F11: a page cannot make a browser ask under another name."""

    GOOD: ClassVar = ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]", "[::1]:8000", "testserver"]
    BAD: ClassVar = [
        "evil.test",
        "evil.test:8000",
        "192.0.2.7",
        "",
        " ",
        "localhost.evil.test",
        "evil.test.localhost",
        "localhost.",
    ]
    BAD += [
        "127.0.0.1.evil.test",
        "localhost:80:80",
        "localhost:",
        "localhost:x",
        "localhost:99999999",
        "localhost@evil",
    ]
    BAD += ["[::1].evil.test", "[::1]evil", "[::1", "::1", "127.1", "2130706433", "0x7f.1", "0.0.0.0", "localhost/evil"]
    BAD += ["localhost, evil.test", "localhost\0", "localhost:\u0668\u0660", "[::ffff:127.0.0.1]"]

    @pytest.mark.parametrize("host", GOOD)
    def test_good(self, host):
        assert ask(guarded(), headers=[("Host", host)]).status == 200

    @pytest.mark.parametrize("host", BAD)
    def test_bad(self, host):
        for path in ("/v1/stats", "/healthz"):
            answer = ask(guarded(), path=path, headers=[("Host", host)])
            assert answer.status == 403
            assert "evil" not in answer.body.decode()

    def test_one_and_only_one(self):
        assert ask(guarded(), headers=[("Host", "localhost")] * 2).status == 400
        scope = request()
        scope["headers"] = []
        assert asyncio.run(answered(guarded(), scope)).status == 400

    def test_listed(self):
        guard = guarded(hosts=Settings.of({"RAEBURN_ALLOWED_HOSTS": "Memory.Example.org, [2001:db8::1]"}).hosts)
        for host in ("memory.example.org:443", "[2001:DB8::1]:80", "localhost"):
            assert ask(guard, headers=[("Host", host)]).status == 200
        assert ask(guard, headers=[("Host", "example.org")]).status == 403

    def test_any_with_a_key_unless_listed(self):
        said = [("Authorization", f"Bearer {KEY}"), ("Host", "anything.test")]
        for more, status in (({}, 200), ({"RAEBURN_ALLOWED_HOSTS": "memory.test"}, 403)):
            settings = Settings.of({"RAEBURN_API_KEY": KEY, **more})
            assert ask(Guard(Echo(), lambda settings=settings: settings), headers=said).status == status


class TestOtherPages:
    """F12: pages of other sites change nothing and read nothing."""

    FOREIGN: ClassVar = {
        "other site": [("Origin", "https://evil.test")],
        "null": [("Origin", "null")],
        "empty": [("Origin", "")],
        "other port": [("Origin", "http://127.0.0.1:9000")],
        "suffix": [("Origin", "http://127.0.0.1:8000.evil.test")],
        "prefix": [("Origin", "http://evil.test/127.0.0.1:8000")],
        "user": [("Origin", "http://127.0.0.1:8000@evil.test")],
        "other scheme": [("Origin", "file://127.0.0.1:8000")],
        "two, one right": [("Origin", "http://127.0.0.1:8000"), ("Origin", "https://evil.test")],
        "0.0.0.0": [("Origin", "http://0.0.0.0:8000")],
        "cross-site": [("Sec-Fetch-Site", "cross-site")],
        "same-site": [("Sec-Fetch-Site", "same-site")],
        "made up": [("Sec-Fetch-Site", "")],
        "both": [("Origin", "http://127.0.0.1:8000"), ("Sec-Fetch-Site", "cross-site")],
    }

    @pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
    @pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "TRACE", "post"])
    def test_change_nothing(self, headers, method):
        app = Echo()
        assert ask(guarded(app), method, headers=headers).status == 403
        assert app.asked == 0
        good = [("Authorization", f"Bearer {KEY}")]
        assert ask(keyed(app=app), method, headers=[*headers, *good]).status == 403
        assert app.asked == 0

    @pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
    def test_read_nothing(self, headers):
        answer = ask(guarded(), headers=headers)  # what comes back, a browser keeps from them
        assert not [name for name, _ in answer.headers if name.startswith("access-control")]

    def test_own_pages(self):
        own = [("Origin", "HTTP://127.0.0.1:8000"), ("Sec-Fetch-Site", "same-origin")]
        assert ask(guarded(), "POST", headers=own).status == 200
        assert ask(guarded(), "POST", headers=[("Sec-Fetch-Site", "none")]).status == 200
        assert ask(guarded(), "POST").status == 200  # no browser

    def test_listed(self):
        guard = guarded(origins=frozenset({"https://app.test"}))
        answer = ask(guard, "POST", headers=[("Origin", "https://app.test"), ("Sec-Fetch-Site", "cross-site")])
        assert answer.status == 200
        assert (answer["access-control-allow-origin"], answer["vary"]) == ("https://app.test", "origin")
        assert answer["access-control-allow-credentials"] is None
        for foreign in ("https://evil.test", "http://app.test", "https://app.test.evil.test", "null"):
            answer = ask(guard, "POST", headers=[("Origin", foreign)])
            assert (answer.status, answer["access-control-allow-origin"], answer["vary"]) == (403, None, "origin")

    def test_preflight_only_where_listed(self):
        asks = [("Origin", "https://app.test"), ("Access-Control-Request-Method", "POST")]
        app = Echo(405)
        assert ask(guarded(app), "OPTIONS", headers=asks).status == 405
        assert ask(keyed(), "OPTIONS", headers=asks).status == 401
        origins = frozenset({"https://app.test"})
        for guard in (guarded(origins=origins), keyed(origins=origins)):
            answer = ask(guard, "OPTIONS", headers=asks)
            assert (answer.status, answer.body) == (204, b"")
            assert "authorization" in answer["access-control-allow-headers"]
            assert answer["access-control-allow-origin"] == "https://app.test"
        foreign = [("Origin", "https://evil.test"), asks[1]]
        assert ask(keyed(origins=origins), "OPTIONS", headers=foreign).status == 401

    def test_an_error_can_be_read_by_a_listed_page(self):
        answer = ask(keyed(origins=frozenset({"https://app.test"})), headers=[("Origin", "https://app.test")])
        assert (answer.status, answer["access-control-allow-origin"]) == (401, "https://app.test")


class TestRate:
    """F3: so many requests a minute, by the address that the connection comes from."""

    def spend(self, guard, count, headers=(), client=("192.0.2.1", 1)):
        return [ask(guard, headers=headers, client=client).status for _ in range(count)]

    def test_so_many(self):
        guard = guarded(rate=5)
        assert self.spend(guard, 7) == [200] * 5 + [429] * 2
        assert self.spend(guard, 1, client=("192.0.2.2", 1)) == [200]

    def test_says_when(self):
        guard = guarded(rate=2)
        self.spend(guard, 2)
        answer = ask(guard, client=("192.0.2.1", 9))
        assert answer.status == 429
        assert 1 <= int(answer["retry-after"]) <= 30
        assert answer.json["detail"] == "More than 2 requests in a minute."

    def test_wrong_keys_count(self):
        assert self.spend(keyed(rate=3), 5, [("Authorization", "Bearer guess")]) == [401] * 3 + [429] * 2

    def test_health_does_not_count(self):
        guard = guarded(rate=1)
        assert [ask(guard, path="/healthz").status for _ in range(5)] == [200] * 5

    def test_forwarded_addresses_are_not_believed(self):
        guard = guarded(rate=3)
        said = [
            ask(guard, headers=[("X-Forwarded-For", f"198.51.100.{n}"), ("Forwarded", f"for=198.51.100.{n}")]).status
            for n in range(6)
        ]
        assert said == [200] * 3 + [429] * 3

    PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))

    @pytest.mark.parametrize(
        ("peer", "forwarded", "client"),
        [
            ("192.0.2.1", [b"198.51.100.1"], "192.0.2.1"),  # no proxy
            ("10.0.0.1", [], "10.0.0.1"),
            ("10.0.0.1", [b"198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", [b"1.1.1.1, 198.51.100.1"], "198.51.100.1"),  # the first was written by the client
            ("10.0.0.1", [b"1.1.1.1", b"198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", [b"198.51.100.1, 10.9.9.9"], "198.51.100.1"),
            ("10.0.0.1", [b"10.1.1.1,10.2.2.2"], "10.1.1.1"),
            ("10.0.0.1", [b"198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", [b"\xff\xfe, ,"], "10.0.0.1"),
            ("::ffff:10.0.0.1", [b"198.51.100.1"], "198.51.100.1"),
            ("fd00::1", [b"2001:db8:1:2:3::4"], "2001:db8:1:2::/64"),
            ("2001:db8:1:2:ffff::1", [], "2001:db8:1:2::/64"),
            ("fe80::1%eth0", [], "fe80::/64"),
            ("testclient", [b"198.51.100.1"], "testclient"),
            ("", [], ""),
        ],
    )
    def test_who_asks(self, peer, forwarded, client):
        assert client_of(peer, forwarded, self.PROXIES) == client

    def test_an_ipv6_network_is_one_client(self):
        guard = guarded(rate=3)
        said = [ask(guard, client=(f"2001:db8::{n:x}:1", 1)).status for n in range(1, 6)]
        assert said == [200] * 3 + [429] * 2

    def test_very_many_addresses(self):
        limiter = Limiter(10, clock=lambda: 0.0)
        tracemalloc.start()
        for number in range(100_000):
            limiter.wait_for(str(number))
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(limiter) == 10_000
        assert held < 5_000_000

    def test_fills_evenly(self):
        now = 0.0
        limiter = Limiter(6, clock=lambda: now)
        assert [limiter.wait_for("a") for _ in range(6)] == [0.0] * 6
        assert limiter.wait_for("a") == pytest.approx(10)
        now = 9.9
        assert limiter.wait_for("a") == pytest.approx(0.1)
        now = 10.0
        assert limiter.wait_for("a") == 0.0
        now = 10_000.0
        assert [limiter.wait_for("a") > 0 for _ in range(7)] == [False] * 6 + [True]

    def test_a_clock_that_goes_back(self):
        now = 1000.0
        limiter = Limiter(2, clock=lambda: now)
        assert limiter.wait_for("a") == 0.0
        now = 0.0
        assert limiter.wait_for("a") == 0.0  # nobody is punished
        assert limiter.wait_for("a") > 0  # and nobody is rewarded
        assert Limiter(1)._clock is time.monotonic

    def test_a_new_rate_holds_at_once(self):
        chosen = [Settings(rate=1)]
        guard = Guard(Echo(), lambda: chosen[0])
        assert self.spend(guard, 2) == [200, 429]
        chosen[0] = Settings(rate=3)
        assert self.spend(guard, 4) == [200, 200, 200, 429]


class TestBodies:
    """F4: a body is read whole, within a limit and a time, before anything is done with it."""

    LIMIT = 1 << 20

    def post(self, parts, headers=(), app=None, **settings):
        app = Echo() if app is None else app
        return ask(guarded(app, **settings), "POST", headers=headers, parts=parts), app

    def test_up_to_the_limit(self):
        body = b"x" * self.LIMIT
        for parts in ([body], [body[:9], body[9:]], [b"", body, b""]):
            answer, app = self.post(parts, [("Transfer-Encoding", "chunked")])
            assert (answer.status, app.bodies) == (200, [body])

    def test_one_byte_more(self):
        for headers in ([("Content-Length", str(self.LIMIT + 1))], [("Transfer-Encoding", "chunked")]):
            answer, app = self.post([b"x" * self.LIMIT, b"x"], headers)
            assert (answer.status, app.asked, answer["connection"]) == (413, 0, "close")

    def test_refused_by_its_length_before_it_is_read(self):
        for length in (str(self.LIMIT + 1), "9" * 4000):
            answer, _ = self.post([b"x"], [("Content-Length", length)])
            assert (answer.status, answer.read) == (413, 0)

    def test_endless(self):
        answer, app = self.post([b"x" * 65536] * 10_000, [("Transfer-Encoding", "chunked")])
        assert (answer.status, app.asked, answer.read) == (413, 0, self.LIMIT // 65536 + 1)

    @pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "", "+5", "5, 5", "\u0665"])
    def test_a_length_that_is_none(self, length):
        answer, app = self.post([b"hello"], [("Content-Length", length)])
        assert (answer.status, app.asked) == (400, 0)

    def test_a_length_that_lies(self):
        answer, app = self.post([b"x" * self.LIMIT, b"x"], [("Content-Length", "3")])
        assert (answer.status, app.asked) == (413, 0)
        answer, app = self.post([], [("Content-Length", "300")])  # the client went away
        assert (answer.status, app.asked) == (0, 0)

    @pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip", "GZIP"])
    def test_packed(self, coding):
        answer, app = self.post([gzip.compress(b"{}")], [("Content-Encoding", coding)])
        assert (answer.status, app.asked) == (415, 0)

    def test_slow(self, monkeypatch):
        monkeypatch.setattr(guard_module, "_BODY_SECONDS", 0.05)

        async def pause():
            await asyncio.sleep(0.02)

        app = Echo()
        for headers in ([("Transfer-Encoding", "chunked")], [("Content-Length", "1000")]):
            answer = asyncio.run(answered(guarded(app), request("POST", headers=headers), [b"x"] * 1000, pause=pause))
            assert (answer.status, app.asked, answer["connection"]) == (408, 0, "close")

    def test_another_limit(self):
        assert self.post([b"x" * 2049], [("Transfer-Encoding", "chunked")], max_body=2048)[0].status == 413

    def test_without_a_body(self):
        app = Echo()
        assert ask(guarded(app)).status == 200
        assert app.bodies == [b""]

    def test_one_hears_that_the_client_went(self):
        heard = []

        async def app(_scope, receive, send):
            heard.extend([await receive(), await receive()])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

        ask(guarded(app), "POST", parts=[b"a", b"b"])
        assert [message["type"] for message in heard] == ["http.request", "http.disconnect"]


class TestAnswers:
    """F6, F16: what is answered and what is logged say nothing that is nobody's business."""

    SECRET = "my secret text"

    async def broken(self, *_):
        raise ValueError(self.SECRET)

    async def torn(self, _scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        raise ValueError(self.SECRET)

    def test_an_unforeseen_error(self, caplog):
        caplog.set_level(logging.INFO)
        answer = ask(guarded(self.broken))
        assert answer.status == 500
        assert answer.json["request_id"] == answer["x-request-id"]
        assert self.SECRET not in answer.body.decode()
        assert "Traceback" not in answer.body.decode()
        assert __file__ not in answer.body.decode()
        assert self.SECRET not in caplog.text
        mistake = next(record.getMessage() for record in caplog.records if record.levelname == "ERROR")
        assert answer.json["request_id"] in mistake
        assert "ValueError" in mistake
        assert "\n" not in mistake

    def test_an_error_in_the_middle(self, caplog):
        import traceback

        with pytest.raises(RuntimeError) as raised:
            ask(guarded(self.torn))
        assert self.SECRET not in "".join(traceback.format_exception(raised.value))  # as the server logs it
        assert self.SECRET not in caplog.text

    def test_settings_that_became_wrong(self, caplog):
        def settings():
            return Settings.of({"RAEBURN_API_KEY": KEY, "RAEBURN_RATE_LIMIT": "many"})

        answer = ask(Guard(Echo(), settings))
        assert answer.status == 500
        assert "RAEBURN_RATE_LIMIT" not in answer.body.decode()
        assert "RAEBURN_RATE_LIMIT must be a whole number" in caplog.text
        assert KEY not in caplog.text

    @pytest.mark.parametrize("given", ["a b", "x\r\nSet-Cookie: a=b", "x" * 65, "", "é", "<script>", "a\0"])
    def test_a_request_id_that_is_none(self, given):
        answer = ask(guarded(), headers=[("X-Request-ID", given)])
        assert len(answer["x-request-id"]) == 32
        assert answer["set-cookie"] is None

    def test_request_ids(self):
        assert ask(guarded(), headers=[("X-Request-ID", "trace-1.2_3")])["x-request-id"] == "trace-1.2_3"
        two = [("X-Request-ID", "a"), ("X-Request-ID", "b")]
        assert ask(guarded(), headers=two)["x-request-id"] not in {"a", "b"}
        assert len({ask(guarded())["x-request-id"] for _ in range(5)}) == 5

    def test_one_line_a_request(self, caplog):
        caplog.set_level(logging.INFO, "raeburnmemory.access")
        guard = keyed()
        paths = ["/v1/nodes/my secret\r\nid", "/v1/stats", "/nothing"]
        for path in paths:
            ask(guard, "G\nET", path, [("Authorization", f"Bearer {KEY}"), ("User-Agent", self.SECRET)], query=b"key=q")
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == len(paths)
        for line in lines:
            assert "\n" not in line
            assert not [each for each in (self.SECRET, KEY, "my secret", "key=q") if each in line]
            assert set(json.loads(line)) == {"request_id", "client", "method", "route", "status", "ms", "bytes"}

    def test_head_has_no_body(self):
        answer = ask(keyed(), "HEAD")
        assert (answer.status, answer.body) == (401, b"")

    def test_headers_of_every_answer(self):
        for guard in (guarded(), keyed()):
            answer = ask(guard)
            assert (answer["x-content-type-options"], answer["referrer-policy"]) == ("nosniff", "no-referrer")

    def test_observed(self):
        seen = []
        settings = Settings()
        guard = Guard(Echo(), lambda: settings, observe=lambda *what: seen.append(what[:3]))
        ask(guard, path="/v1/nodes/secret")
        assert seen == [("GET", "-", 200)]

    def test_a_problem(self):
        problem = Problem(422, 'say "no"', code="InvalidInput", errors=[{"where": "k"}])
        assert json.loads(problem.body("r1")) == {
            "type": "about:blank",
            "title": "Unprocessable Content",
            "status": 422,
            "detail": 'say "no"',
            "code": "InvalidInput",
            "request_id": "r1",
            "errors": [{"where": "k"}],
        }

    @pytest.mark.parametrize(
        ("status", "title"),
        [(400, "Bad Request"), (413, "Content Too Large"), (414, "URI Too Long"), (416, "Range Not Satisfiable")],
    )
    def test_a_title_is_the_same_on_every_python(self, status, title):
        assert json.loads(Problem(status, "no").body())["title"] == title


class TestLife:
    """What a server is told when it starts and stops."""

    def live(self, **more):
        settings = more.pop("settings", Settings)
        said, told = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}], []

        async def receive():
            return said.pop(0)

        async def send(message):
            told.append(message)

        with contextlib.suppress(InvalidInput, StoreWriteFailed):
            asyncio.run(Guard(Echo(), settings, **more)({"type": "lifespan"}, receive, send))
        return told

    def test_starts_and_stops(self):
        done = []
        told = self.live(start=lambda: done.append("start"), stop=lambda: done.append("stop"))
        assert [message["type"] for message in told] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert done == ["start", "stop"]

    def test_wrong_settings_stop_the_start(self):
        [told] = self.live(settings=lambda: Settings.of({"RAEBURN_API_KEY": ""}), start=pytest.fail)
        assert told["type"] == "lifespan.startup.failed"
        assert told["message"].startswith("RAEBURN_API_KEY is empty.")

    def test_a_store_that_cannot_be_written(self):
        def start():
            raise StoreWriteFailed(13, "'/data/memory.db' cannot be written.")

        [told] = self.live(start=start)
        assert told["type"] == "lifespan.startup.failed"
        assert "cannot be written" in told["message"]

    def test_what_cannot_be_closed(self):
        def stop():
            raise StoreWriteFailed(28, "The disk is full.")

        told = self.live(stop=stop)
        assert [message["type"] for message in told] == ["lifespan.startup.complete", "lifespan.shutdown.failed"]


class TestSettings:
    """Settings are read once, and what makes no sense is said in one sentence."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("RAEBURN_API_KEY", value) for value in ["", " ", " k", "k ", "a b", "a\tb", "a\nb", "\0", "k\udcff"]),
            *(
                ("RAEBURN_RATE_LIMIT", value)
                for value in [
                    "",
                    "0",
                    "-1",
                    "many",
                    "1.5",
                    "1e3",
                    " 5",
                    "\u0665",
                    "9" * 30,
                    "1_000",
                    "+1",
                    "inf",
                    "nan",
                ]
            ),
            *(("RAEBURN_MAX_BODY", value) for value in ["", "0", "1023", "-5", "1M", "9" * 15]),
            *(("RAEBURN_ALLOW_OPEN", value) for value in ["", "yes", "true", "2", " 1"]),
            *(
                ("RAEBURN_ALLOWED_HOSTS", value)
                for value in ["*", "http://a", "a:80", "a/b", "a..b", "*.example.org", "é"]
            ),
            *(
                ("RAEBURN_CORS_ORIGINS", value)
                for value in [
                    "*",
                    "null",
                    "example.org",
                    "https://a/",
                    "https://a/b",
                    "ftp://a",
                    "https://",
                    "https://a?b",
                ]
            ),
            *(("RAEBURN_TRUSTED_PROXIES", value) for value in ["*", "proxy", "10.0.0.1/8", "10.0.0.0/33", "10.0.0"]),
        ],
    )
    def test_wrong(self, name, value):
        with pytest.raises(InvalidInput) as raised:
            Settings.of({name: value})
        assert name in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_a_wrong_key_is_not_shown(self):
        with pytest.raises(InvalidInput) as raised:
            Settings.of({"RAEBURN_API_KEY": f"{KEY} {KEY}"})
        assert KEY not in str(raised.value)

    def test_right(self):
        settings = Settings.of(
            {
                "RAEBURN_API_KEY": KEY,
                "RAEBURN_RATE_LIMIT": "600",
                "RAEBURN_MAX_BODY": "2048",
                "RAEBURN_ALLOW_OPEN": "1",
                "RAEBURN_ALLOWED_HOSTS": "A.example.org,b",
                "RAEBURN_CORS_ORIGINS": "https://App.test, http://localhost:3000",
                "RAEBURN_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
                "HOME": "/root",
            }
        )
        assert (settings.key, settings.rate, settings.max_body, settings.allow_open) == (KEY.encode(), 600, 2048, True)
        assert settings.hosts >= {"a.example.org", "b", "localhost"}
        assert settings.origins == {"https://app.test", "http://localhost:3000"}
        assert [str(network) for network in settings.proxies] == ["10.0.0.0/8", "::1/128"]

    def test_of_nothing(self):
        assert Settings.of({}) == Settings()

    def test_the_key_is_not_shown(self):
        assert KEY not in repr(Settings(key=KEY.encode()))
