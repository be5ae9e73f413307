"""What may be fetched: no address leads into this network, no answer costs more than it may. Real sockets throughout."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import ipaddress
import socket
import ssl
import threading
import time
import zlib

import pytest

from raeburnmemory.errors import InvalidInput
from raeburnmemory.hub.documents import BlockedUrl, FetchError, TooLarge, load
from raeburnmemory.hub.fetching import UrlPolicy, fetch, is_public

pytest.importorskip("httpcore", reason="documents are fetched with httpx's core")

# --- a server, and names for it ---------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """Answers as `answers` says, by path, and counts who connected and what was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked, self.connections = {}, [], 0
        self.port = self.server_address[1]

    def get_request(self):
        self.connections += 1
        return super().get_request()

    def handle_error(self, request, address):
        """Say nothing: clients that hang up are what is tested."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        answer = self.server.answers.get(self.path.partition("?")[0])
        if callable(answer):
            with contextlib.suppress(OSError):
                answer(self)
            return
        status, headers, body = answer or (404, {}, b"")
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def names(monkeypatch):
    """Return a table of names: each has answers, one list of addresses after the other; nothing else is resolved."""
    table, real = {}, socket.getaddrinfo

    def resolve(host, port, *arguments, **options):
        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:  # as httpcore asks for the address that it was given
            return real(host, port, *arguments, **options)
        answers = table.get(host)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        resolve.asked.append(host)
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses
        ]

    resolve.asked = []
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    table["asked"] = resolve.asked
    return table


def open_to(server, *hosts, **more):
    return UrlPolicy(allow_hosts=tuple(f"{host}:{server.port}" for host in hosts or ("127.0.0.1",)), **more)


# --- addresses that are refused (F8) ----------------------------------------------------------------------------

REFUSED = {
    "http://127.0.0.1/": "address",
    "http://localhost/": "address",
    "http://LOCALHOST:80/": "address",
    "http://localhost./": "address",
    "http://a.localhost/": "address",
    "http://127.1/": "host",
    "http://2130706433/": "host",
    "http://0x7f.1/": "host",
    "http://0x7f000001/": "host",
    "http://0177.0.0.1/": "host",
    "http://127.0.0.1./": "address",
    "http://0.0.0.0/": "address",
    "http://0/": "host",
    "http://[::1]/": "address",
    "http://[::]/": "address",
    "http://[::ffff:127.0.0.1]/": "address",
    "http://[::ffff:7f00:1]/": "address",
    "http://[::127.0.0.1]/": "address",
    "http://[64:ff9b::127.0.0.1]/": "address",
    "http://[64:ff9b:1::1]/": "address",
    "http://[2002:7f00:1::]/": "address",
    "http://[fe80::1]/": "address",
    "http://[fe80::1%25lo]/": "malformed",
    "http://[fc00::1]/": "address",
    "http://[fd00:ec2::254]/": "address",
    "http://[ff02::1]/": "address",
    "http://10.1.2.3/": "address",
    "http://172.16.0.1/": "address",
    "http://192.168.1.1/": "address",
    "http://169.254.169.254/latest/meta-data": "address",
    "http://metadata.google.internal/": "address",
    "http://100.64.0.1/": "address",
    "http://198.18.0.1/": "address",
    "http://224.0.0.1/": "address",
    "http://255.255.255.255/": "address",
    "http://a@b.test/": "userinfo",
    "http://public.test:80@127.0.0.1/": "userinfo",
    "http://public.test\\@127.0.0.1/": "malformed",
    "http:\\\\127.0.0.1/": "malformed",
    "http://127.0.0.1#@public.test/": "address",
    "http://127.0.0.1?@public.test/": "address",
    "http://127。0。0。1/": "host",
    "http://\uff11\uff12\uff17.0.0.1/": "address",
    "http://ⓛocalhost/": "address",
    "http://127.0.0.1%2f.public.test/": "host",
    "http://public.test /": "malformed",
    "http://public.test\r\nHost: x/": "malformed",
    "http://public.test:22/": "port",
    "http://public.test:6379/": "port",
    "http://public.test:99999/": "port",
    "http://public.test:80:80/": "malformed",
    "http:///etc/passwd": "malformed",
    "http://-x.test/": "host",
    f"http://{'a' * 64}.test/": "host",
    "file:///etc/passwd": "scheme",
    "ftp://public.test/": "scheme",
    "gopher://127.0.0.1:6379/_x": "scheme",
    "data:text/html,x": "scheme",
    "javascript:alert(1)": "scheme",
    "//public.test/": "scheme",
    "public.test": "scheme",
    "": "scheme",
    "http://public.test/" + "x" * 9000: "malformed",
}


@pytest.mark.parametrize("url", REFUSED, ids=lambda url: url[:45].encode("unicode_escape").decode())
def test_an_address_is_refused_by_its_text_before_anybody_is_asked(url, names):
    with pytest.raises(BlockedUrl) as caught:
        fetch(url)
    assert caught.value.reason == REFUSED[url]
    assert names["asked"] == []


def test_the_list_is_as_long_as_was_asked_for():
    assert len(REFUSED) >= 36


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://public.test", "http://public.test/"),
        ("HTTP://Public.Test.:80/a?b=c#d", "http://public.test/a?b=c"),
        ("https://public.test:443?q", "https://public.test/?q"),
        ("http://public.test:443/", "http://public.test:443/"),
        ("http://bücher.test/ü", "http://xn--bcher-kva.test/ü"),
        ("http://public.test#@127.0.0.1/", "http://public.test/"),
        ("http://8.8.8.8/", "http://8.8.8.8/"),
        ("http://[2606:4700::1111]/x", "http://[2606:4700::1111]/x"),
        ("http://[64:ff9b::8.8.8.8]/", "http://[64:ff9b::808:808]/"),
    ],
)
def test_an_address_that_may_be_asked_is_asked_as_it_was_checked(url, expected):
    pytest.importorskip("idna")
    assert UrlPolicy().check(url).url == expected


def test_every_address_that_is_special_is_not_public():
    special = "0.1.2.3 10.0.0.1 100.127.255.255 127.255.0.1 169.254.0.1 172.31.0.1 192.0.0.8 192.0.2.1 192.88.99.1 192.168.0.1"
    special += (
        " 198.19.0.1 198.51.100.1 203.0.113.1 239.0.0.1 240.0.0.1 :: ::1 ::8.8.8.8 ::ffff:10.0.0.1 64:ff9b::10.0.0.1"
    )
    special += " 100::1 2001::1 2001:db8::1 2002::1 3fff::1 5f00::1 fc00::1 fdff::1 fe80::1%lo fec0::1 ff0e::1"
    assert [address for address in special.split() if is_public(address)] == []
    public = "1.1.1.1 8.8.8.8 100.63.0.1 172.32.0.1 193.0.0.1 2606:4700::1 2a00:1450::1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8"
    assert [address for address in public.split() if not is_public(address)] == []


PRIVATE = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:192.168.0.1", "fe80::1%lo", "0.0.0.0"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_that_means_a_private_address_is_refused(names, address):
    names["public.test"] = [[address]]
    with pytest.raises(BlockedUrl, match="not on the Internet") as caught:
        fetch("http://public.test/")
    assert caught.value.reason == "address"


def test_one_private_address_among_others_is_enough(names):
    names["public.test"] = [["8.8.8.8", "127.0.0.1"]]
    with pytest.raises(BlockedUrl):
        fetch("http://public.test/")


def test_a_name_is_resolved_once_and_the_connection_goes_where_it_was_checked(names, server, monkeypatch):
    """A name that means a public address when it is checked and this machine afterwards: rebinding."""
    from raeburnmemory.hub import _network

    names["public.test"] = [["8.8.8.8"], ["127.0.0.1"]]
    connected = []
    real = _network.httpcore.SyncBackend.connect_tcp

    def connect(self, host, port, *arguments, **options):
        connected.append(host)
        return real(self, "127.0.0.1", server.port, *arguments, **options)

    monkeypatch.setattr(_network.httpcore.SyncBackend, "connect_tcp", connect)
    server.answers["/"] = (200, {}, b"answer")
    assert fetch("http://public.test/").data == b"answer"
    assert connected == ["8.8.8.8"]
    assert names["asked"] == ["public.test"]
    assert server.asked[0][1]["Host"] == "public.test"
    with pytest.raises(BlockedUrl):
        fetch("http://public.test/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_into_this_network_is_refused(server, status):
    inner = Server()
    try:
        server.answers["/"] = (status, {"Location": f"http://127.0.0.1:{inner.port}/secret"}, b"")
        with pytest.raises(BlockedUrl) as caught:
            fetch(f"http://127.0.0.1:{server.port}/", policy=open_to(server))
        assert caught.value.reason == "port"
        server.answers["/"] = (status, {"Location": "http://10.0.0.1/"}, b"")
        with pytest.raises(BlockedUrl) as caught:
            fetch(f"http://127.0.0.1:{server.port}/", policy=open_to(server))
        assert caught.value.reason == "address"
        assert inner.connections == 0
    finally:
        inner.server_close()


@pytest.mark.parametrize(
    "where", ["file:///etc/passwd", "gopher://x/", "//127.1/", "http://a@b.test/", "javascript:1", "http:\\\\x"]
)
def test_a_redirection_is_checked_as_if_it_had_been_typed(server, where):
    server.answers["/"] = (302, {"Location": where}, b"")
    with pytest.raises(BlockedUrl):
        fetch(f"http://127.0.0.1:{server.port}/", policy=open_to(server))


def test_a_private_host_that_may_be_asked_is_not_reached_from_elsewhere(server, names):
    """Two hosts of one's own are allowed: one page still cannot make us read another."""
    names["one.lan"], names["two.lan"] = [["127.0.0.1"]], [["127.0.0.1"]]
    policy = open_to(server, "one.lan", "two.lan")
    server.answers["/secret"] = (200, {}, b"secret")
    assert fetch(f"http://two.lan:{server.port}/secret", policy=policy).data == b"secret"
    server.answers["/"] = (302, {"Location": f"http://two.lan:{server.port}/secret"}, b"")
    with pytest.raises(BlockedUrl):
        fetch(f"http://one.lan:{server.port}/", policy=policy)
    server.answers["/"] = (302, {"Location": "/secret"}, b"")
    assert fetch(f"http://one.lan:{server.port}/", policy=policy).data == b"secret"


def test_a_page_that_refreshes_itself_leads_nowhere(server):
    page = f'<html><head><meta http-equiv="refresh" content="0;url=http://127.0.0.1:{server.port}/secret"></head><body><p>x</p></body></html>'
    server.answers["/"] = (200, {"Content-Type": "text/html"}, page.encode())
    found = fetch(f"http://127.0.0.1:{server.port}/", policy=open_to(server))
    assert load(found.data, mime=found.mime).text == "x"
    assert [path for path, _ in server.asked] == ["/"]


def test_proxies_of_the_environment_are_not_asked(server, monkeypatch):
    proxy = Server()
    try:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        server.answers["/"] = (200, {}, b"straight")
        assert fetch(f"http://127.0.0.1:{server.port}/", policy=open_to(server)).data == b"straight"
        assert proxy.connections == 0
    finally:
        proxy.server_close()


def test_what_may_be_allowed(server):
    server.answers["/"] = (200, {}, b"x")
    url = f"http://127.0.0.1:{server.port}/"
    for policy in (UrlPolicy(allow_hosts=("127.0.0.1",), ports=(server.port,)), open_to(server, "127.0.0.1")):
        assert fetch(url, policy=policy).data == b"x"
    for policy in (
        UrlPolicy(),
        UrlPolicy(allow_hosts=("127.0.0.1",)),
        UrlPolicy(ports=(server.port,)),
        UrlPolicy(allow_hosts=(f"127.0.0.1:{server.port + 1}",)),
        UrlPolicy(allow_hosts=(f"localhost:{server.port}",)),
    ):
        with pytest.raises(BlockedUrl):
            fetch(url, policy=policy)
    assert UrlPolicy(allow_hosts=("[::1]:8000",)).check("http://[::1]:8000/").private
    assert UrlPolicy(allow_hosts=("fd00::5:1",)).check("http://[fd00::5:1]/").private
    assert UrlPolicy(allow_hosts=("Wiki.LAN.",)).check("http://wiki.lan/").private
    with pytest.raises(InvalidInput, match="allow_hosts"):
        UrlPolicy(allow_hosts="wiki.lan")
    with pytest.raises(InvalidInput, match="size"):
        UrlPolicy(size=0)


# --- what an answer may cost (F9) -------------------------------------------------------------------------------


def get(server, path="/", **more):
    return fetch(f"http://127.0.0.1:{server.port}{path}", policy=open_to(server, **more))


def test_an_answer_and_what_it_says_of_itself(server):
    server.answers["/a%20b.txt"] = (200, {"Content-Type": "text/plain; charset=koi8-r", "ETag": '"1"', "Last-Modified": "Mon"}, "Привет".encode("koi8-r"))  # fmt: skip
    found = get(server, "/a%20b.txt?x=1")
    assert (found.name, found.etag, found.last_modified, found.status) == ("a b.txt", '"1"', "Mon", 200)
    assert load(found.data, name=found.name, mime=found.mime).text == "Привет"
    assert {name.lower() for name in server.asked[0][1]} == {
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "connection",
    }


def test_asking_whether_anything_changed(server):
    def answer(handler):
        same = handler.headers.get("If-None-Match") == '"1"' and handler.headers.get("If-Modified-Since") == "Mon"
        handler.send_response(304 if same else 200)
        handler.send_header("Content-Length", "0" if same else "3")
        handler.end_headers()
        handler.wfile.write(b"" if same else b"new")

    server.answers["/"] = answer
    found = fetch(f"http://127.0.0.1:{server.port}/", policy=open_to(server), etag='"1"', last_modified="Mon")
    assert (found.not_modified, found.data, found.etag) == (True, b"", '"1"')
    assert get(server).data == b"new"
    server.answers["/"] = (304, {}, b"")
    with pytest.raises(FetchError, match="status 304"):
        get(server)


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


def test_an_endless_body(server):
    server.answers["/"] = endless
    with pytest.raises(TooLarge, match="100,000 bytes"):
        get(server, size=100_000)


def test_a_body_that_says_it_is_too_large(server):
    server.answers["/"] = (200, {"Content-Length": 10_000_000_000}, b"x")
    begun = time.monotonic()
    with pytest.raises(TooLarge):
        get(server)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("packing", ["gzip", "deflate", "raw deflate"])
def test_a_bomb_is_unpacked_no_further_than_allowed(server, packing):
    packer = zlib.compressobj(9, zlib.DEFLATED, {"gzip": 31, "deflate": 15, "raw deflate": -15}[packing])
    body = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(30)) + packer.flush()
    server.answers["/"] = (200, {"Content-Encoding": packing.split()[-1]}, body)
    assert len(body) < 40_000
    with pytest.raises(TooLarge):
        get(server, size=2_000_000)
    server.answers["/"] = (200, {"Content-Encoding": packing.split()[-1]}, _packed(b"hello " * 100_000, packing))
    assert get(server).data == b"hello " * 100_000


def _packed(data, packing):
    packer = zlib.compressobj(9, zlib.DEFLATED, {"gzip": 31, "deflate": 15, "raw deflate": -15}[packing])
    return packer.compress(data) + packer.flush()


def test_packing_that_is_odd_or_broken(server):
    server.answers["/"] = (200, {"Content-Encoding": "gzip"}, gzip.compress(b"one ") + gzip.compress(b"two"))
    assert get(server).data == b"one two"
    server.answers["/"] = (200, {"Content-Encoding": "gzip"}, b"")
    assert get(server).data == b""
    for encoding, body in [
        ("gzip", gzip.compress(b"x" * 999)[:-9]),
        ("gzip", b"no"),
        ("br", b"x"),
        ("gzip, gzip", b"x"),
        ("gzip", b"\x1f"),
    ]:
        server.answers["/"] = (200, {"Content-Encoding": encoding}, body)
        with pytest.raises(FetchError):
            get(server)


def drip(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(300):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def drip_headers(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(300):
        handler.wfile.write(f"X-{number}: y\r\n".encode())
        time.sleep(0.1)


def silent(handler):
    time.sleep(20)


@pytest.mark.parametrize("answer", [drip, drip_headers, silent])
def test_a_slow_answer_ends_at_the_deadline(server, answer):
    server.answers["/"] = answer
    begun = time.monotonic()
    with pytest.raises(FetchError, match="in time"):
        get(server, seconds=1.0)
    assert time.monotonic() - begun < 8


def test_a_name_that_takes_for_ever(names, monkeypatch):
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: done.wait(20) and [])
    begun = time.monotonic()
    with pytest.raises(FetchError, match="not resolved in time"):
        fetch("http://public.test/", policy=UrlPolicy(seconds=0.3))
    done.set()
    assert time.monotonic() - begun < 8


def test_redirections_are_counted(server):
    server.answers["/"] = (302, {"Location": "/"}, b"")
    with pytest.raises(FetchError, match="more than 5 times"):
        get(server)
    assert len(server.asked) == 6
    for number in range(5):
        server.answers[f"/{number}"] = (302, {"Location": f"{number + 1}"}, b"")
    server.answers["/5"] = (200, {}, b"there")
    found = get(server, "/0")
    assert (found.data, len(found.redirects), found.url.rpartition("/")[2]) == (b"there", 5, "5")


@pytest.mark.parametrize("status", [201, 204, 206, 300, 400, 404, 500])
def test_an_answer_that_is_no_document(server, status):
    server.answers["/"] = (status, {}, b"")
    with pytest.raises(FetchError, match=f"status {status}") as caught:
        get(server)
    assert caught.value.status == status


def test_charsets_that_do_not_exist_and_types_that_are_wrong(server):
    server.answers["/"] = (
        200,
        {"Content-Type": "text/html; charset=no-such"},
        b"<html><body><p>caf\xc3\xa9</p></body></html>",
    )
    found = get(server)
    assert load(found.data, mime=found.mime).text == "café"
    server.answers["/x"] = (200, {"Content-Type": "application/pdf"}, b"<html><body><p>Log in</p></body></html>")
    found = get(server, "/x")
    assert load(found.data, name=found.name, mime=found.mime).mime == "text/html"


def test_answers_that_make_no_sense(server):
    def torn(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")

    for answer in (torn, lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"), lambda handler: None):
        server.answers["/"] = answer
        with pytest.raises(FetchError, match="could not be read"):
            get(server)
    with pytest.raises(FetchError, match="could not be read"):
        fetch("http://127.0.0.1:1/", policy=UrlPolicy(allow_hosts=("127.0.0.1:1",)))


def test_names_that_nobody_knows(names):
    with pytest.raises(FetchError, match="not known"):
        fetch("http://public.test/")


# --- certificates -----------------------------------------------------------------------------------------------


@pytest.fixture
def certified(tmp_path, server):
    """Make the server speak TLS with a certificate for good.test, and return a context that trusts it."""
    x509 = pytest.importorskip("cryptography.x509")
    import datetime as dt

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "good.test")])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("good.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "both.pem").write_bytes(secret + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.answers["/"] = (200, {}, b"secure")
    return ssl.create_default_context(cadata=pem.decode())


def test_the_certificate_must_be_that_of_the_name_though_the_address_is_pinned(names, server, certified):
    names["good.test"] = names["bad.test"] = [["127.0.0.1"]]
    policy = open_to(server, "good.test", "bad.test")
    found = fetch(f"https://good.test:{server.port}/", policy=policy, ssl_context=certified)
    assert found.data == b"secure"
    with pytest.raises(FetchError, match="bad.test"):
        fetch(f"https://bad.test:{server.port}/", policy=policy, ssl_context=certified)
    with pytest.raises(FetchError, match="certificate verify failed"):
        fetch(f"https://good.test:{server.port}/", policy=policy)
