"""Headers and raw bytes in, a verified notification out, or an error that says which of the checks failed."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector_async import errors
from connector_async.errors import (
    ConfigurationError,
    InvalidSignature,
    MissingHeader,
    UnreadableNotification,
    WebhookBodyTooLarge,
    WebhookError,
    WrongAccount,
    WrongClient,
)
from connector_async.protocol.signature import Keyring, sign
from connector_async.webhooks import AppRecord, WebhookReceiver
from connector_async.webhooks import receiver as receiver_module
from connector_async.webhooks._head import read_head
from connector_async.wire import ContentEvent, MessagingEvents
from tests.guards import CANARY, assert_canary_absent
from tests.protocol.test_signature import VECTORS
from tests.webhooks.rig import ACCOUNT, APP, SECRET, content, encoded, headers_for, notification

BODY = encoded(notification(content("c", 0, "naïve 你好 👩‍👩‍👧 e\u0301")))
RECORD = AppRecord(account_id=ACCOUNT, client_id=APP, secret=SECRET)


@attrs.frozen
class Credentials:
    """As `AppCredentials`, which stands in another layer."""

    client_id: str
    client_secret: str
    previous_secrets: tuple[str, ...] = ()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_deliveries_of_the_vendor_are_verified(vector: dict[str, object]) -> None:
    """Both signed samples that the vendor published (webhooks notification protocol)."""
    headers, body = vector["headers"], str(vector["body"]).encode()
    assert isinstance(headers, dict)
    verified = WebhookReceiver(str(vector["secret"])).verify(headers, body)
    assert verified.account_id == "42257269"
    assert verified.client_id == "81fad476-88af-4d08-bc0e-20bc69439ed4"
    assert len(verified.notification.body.changes) == 1


@pytest.mark.parametrize(
    "secrets",
    [
        SECRET,
        ["newer", SECRET],
        (SECRET,),
        RECORD,
        [RECORD],
        [AppRecord(account_id="other", client_id="x", secret="y"), RECORD],
        {ACCOUNT: SECRET},
        {ACCOUNT: ["newer", SECRET]},
        {ACCOUNT: RECORD},
        {ACCOUNT: Credentials(APP, SECRET)},
        {(ACCOUNT, APP): SECRET, (ACCOUNT, "other"): "x"},
        {(ACCOUNT, APP): Credentials(APP, "newer", (SECRET,))},
    ],
    ids=lambda secrets: type(secrets).__name__,
)
def test_secrets_come_in_any_of_the_known_shapes(secrets: receiver_module.Secrets) -> None:
    """A mapping or list of app records, or simply one or more secrets."""
    verified = WebhookReceiver(secrets).verify(headers_for(BODY), BODY)
    assert isinstance(verified.notification.body, MessagingEvents)
    assert isinstance(verified.notification.body.changes[0].event, ContentEvent)


_OF_ONE_APP: list[receiver_module.Secrets] = [
    RECORD,
    [RECORD],
    {ACCOUNT: RECORD},
    {ACCOUNT: Credentials(APP, SECRET)},
    {(ACCOUNT, APP): SECRET},
    {(ACCOUNT, APP): ["newer", SECRET]},
    {(ACCOUNT, APP): Credentials("named otherwise", SECRET)},
    {(ACCOUNT, APP): attrs.evolve(RECORD, client_id="named otherwise")},
]


@pytest.mark.parametrize("secrets", [*_OF_ONE_APP, {ACCOUNT: SECRET}, {ACCOUNT: [SECRET]}], ids=range(10))
def test_a_secret_that_was_given_for_an_account_is_believed_of_no_other(secrets: receiver_module.Secrets) -> None:
    """Whoever knows the secret of one app must not be able to speak for everybody."""
    receiver = WebhookReceiver(secrets)
    assert receiver.verify(headers_for(BODY), BODY).account_id == ACCOUNT
    with pytest.raises(WrongAccount) as caught:
        receiver.verify(headers_for(BODY, account="other"), BODY)
    assert caught.value.args == ("the delivery is for an account that is not served here",)


@pytest.mark.parametrize("secrets", _OF_ONE_APP, ids=range(8))
def test_a_secret_that_was_given_for_an_app_is_believed_of_no_other(secrets: receiver_module.Secrets) -> None:
    """Where the key of a mapping names the app, it counts, whatever the value calls itself."""
    receiver = WebhookReceiver(secrets)
    assert receiver.verify(headers_for(BODY), BODY).client_id == APP
    with pytest.raises(WrongClient) as caught:
        receiver.verify(headers_for(BODY, app="other"), BODY)
    assert caught.value.args == ("the delivery is for an app that is not served here",)


@pytest.mark.parametrize("secrets", ["", [], [""], {}, {ACCOUNT: ""}, {ACCOUNT: []}, [5], [SECRET, ""]])
def test_a_receiver_without_a_secret_is_refused(secrets: receiver_module.Secrets) -> None:
    """An empty secret verifies what anybody can sign."""
    with pytest.raises(
        ConfigurationError, match=r"^a webhook (secret is .* not int|receiver needs at least one secret)"
    ):
        WebhookReceiver(secrets)


@pytest.mark.parametrize(
    "headers",
    [
        headers_for(BODY),
        {name.upper(): value for name, value in headers_for(BODY).items()},
        {name.lower(): value.encode() for name, value in headers_for(BODY).items()},
        [(name.lower().encode(), value.encode()) for name, value in headers_for(BODY).items()],
    ],
    ids=["mapping", "upper", "bytes", "asgi"],
)
def test_headers_come_in_any_of_the_usual_shapes(headers: receiver_module.Headers) -> None:
    """Names are case-insensitive (webhooks notification protocol)."""
    assert WebhookReceiver(SECRET).verify(headers, BODY).account_id == ACCOUNT


def test_headers_are_read_once_so_that_an_iterator_will_do() -> None:
    """As some frameworks have them."""
    assert WebhookReceiver(SECRET).verify(iter(headers_for(BODY).items()), BODY).account_id == ACCOUNT


@pytest.mark.parametrize("body", [bytearray(BODY), memoryview(BODY)])
def test_any_bytes_will_do(body: bytearray | memoryview) -> None:
    """Frameworks hand out different kinds of buffer."""
    assert WebhookReceiver(SECRET).verify(headers_for(BODY), body).client_id == APP


def test_text_will_not_do() -> None:
    """Text was decoded by somebody: its bytes are anybody's guess."""
    with pytest.raises(TypeError):
        WebhookReceiver(SECRET).verify(headers_for(BODY), BODY.decode())  # type: ignore[arg-type]  # the misuse itself


@pytest.mark.parametrize("name", ["X-Liveperson-Account-Id", "X-Liveperson-Client-Id", "X-Liveperson-Signature"])
def test_each_missing_header_is_named(name: str) -> None:
    """All three are present, else reject (webhooks notification protocol)."""
    headers = headers_for(BODY)
    del headers[name]
    with pytest.raises(MissingHeader) as caught:
        WebhookReceiver(SECRET).verify(headers, BODY)
    assert caught.value.header == name.lower()
    assert caught.value.args == (f"the header {name.lower()} is missing",)
    assert caught.value.status == 401


@pytest.mark.parametrize(
    ("others", "length", "is_plain"),
    [
        ([], None, True),
        ([("Content-Length", "12")], 12, True),
        ([("Content-Length", "9" * 18)], 10**18 - 1, True),
        ([("Content-Length", "9" * 19)], None, False),
        ([("Content-Length", "many")], None, False),
        ([("Content-Length", "-1")], None, False),
        ([("Content-Length", "٣")], None, False),
        ([("Content-Encoding", "identity")], None, True),
        ([("Content-Encoding", "")], None, True),
        ([("Content-Encoding", "gzip")], None, False),
        ([("Content-Encoding", "gzip"), ("Content-Encoding", "identity")], None, False),
        ([("Content-Encoding", "gzip"), ("Content-Length", "5")], 5, False),
        ([("Content-Length", "x"), ("Content-Encoding", "identity")], None, False),
        ([("X-Forwarded-By", "1"), ("€" * 14, "2")], None, True),
    ],
)
def test_what_a_delivery_says_of_its_body_is_read_with_the_three_headers(
    others: list[tuple[str, str]], length: int | None, is_plain: bool
) -> None:
    """A body that is packed was not signed like that, and a length that is no number is a lie."""
    head = read_head([*others, *headers_for(BODY).items()])
    assert (head.account_id, head.client_id, head.length) == (ACCOUNT, APP, length)
    assert head.is_plain is is_plain


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("X-Liveperson-Account-Id", WrongAccount),
        ("X-Liveperson-Client-Id", WrongClient),
        ("X-Liveperson-Signature", InvalidSignature),
    ],
)
def test_a_header_that_comes_twice_is_refused(name: str, error: type[WebhookError]) -> None:
    """Which of the two a proxy looked at is anybody's guess (fault table W1)."""
    headers = headers_for(BODY)
    plain = [(header.lower().encode(), value.encode()) for header, value in headers.items()]
    twice: list[list[tuple[str | bytes, str | bytes]]] = [
        [*headers.items(), (name, headers[name])],
        [*headers.items(), (name.lower().encode(), b"forged")],
        [*plain, (name.lower().encode(), b"forged")],
        [(name.lower().encode(), b"forged"), *plain],
        [*plain, (name.upper().encode(), b"forged")],
    ]
    for pairs in twice:
        with pytest.raises(error, match="twice"):
            WebhookReceiver(SECRET).verify(pairs, BODY)
    with pytest.raises(error, match="twice"):
        WebhookReceiver(SECRET).verify({**headers, name.upper(): headers[name]}, BODY)


def test_the_headers_choose_among_apps_and_accounts() -> None:
    """Several apps and accounts on one URL (issue of the webhooks, 1)."""
    records = [
        AppRecord(account_id=account, client_id=app, secret=f"{account}/{app}")
        for account in ("1", "2")
        for app in ("a", "b")
    ]
    receiver = WebhookReceiver(records)
    for record in records:
        headers = headers_for(BODY, record.secret, account=record.account_id, app=record.client_id)
        assert receiver.verify(headers, BODY).client_id == record.client_id
    with pytest.raises(WrongAccount):
        receiver.verify(headers_for(BODY, "3/a", account="3", app="a"), BODY)
    with pytest.raises(WrongClient):
        receiver.verify(headers_for(BODY, "1/c", account="1", app="c"), BODY)
    with pytest.raises(InvalidSignature) as caught:
        receiver.verify(headers_for(BODY, "1/b", account="1", app="a"), BODY)
    assert "another secret known here" in caught.value.reason


def test_keys_are_kept_ready_for_so_many_apps_and_only_for_genuine_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers name whatever account they like: that must not fill the memory."""
    monkeypatch.setattr(receiver_module, "_MAX_KEYRINGS", 2)
    receiver = WebhookReceiver(SECRET)
    for number in range(5):
        with pytest.raises(InvalidSignature):
            receiver.verify(headers_for(BODY, "forged", account=f"{number}"), BODY)
    assert receiver._keyrings == {}
    for number in [0, 1, 2, 3, 3]:
        assert receiver.verify(headers_for(BODY, account=f"{number}"), BODY).account_id == f"{number}"
    assert [account for account, _ in receiver._keyrings] == ["0", "1"]
    assert_canary_absent(*receiver._keyrings.values())
    with monkeypatch.context() as patched:
        patched.setattr(receiver_module, "Keyring", _must_not_be_called)
        receiver.verify(headers_for(BODY, account="1"), BODY)
    receiver.replace_secrets("another")
    with pytest.raises(InvalidSignature):
        receiver.verify(headers_for(BODY, account="0"), BODY)


def test_a_large_body_is_refused_before_it_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """413; strangers must not have us compute."""
    monkeypatch.setattr(Keyring, "check", _must_not_be_called)
    receiver = WebhookReceiver(SECRET, max_body_bytes=len(BODY) - 1)
    with pytest.raises(WebhookBodyTooLarge) as caught:
        receiver.verify(headers_for(BODY), BODY)
    assert caught.value.status == 413
    assert caught.value.args == (f"the body exceeds {len(BODY) - 1} bytes",)


def test_a_body_of_the_largest_size_is_taken() -> None:
    """The bound is what is taken, not what is refused."""
    WebhookReceiver(SECRET, max_body_bytes=len(BODY)).verify(headers_for(BODY), BODY)


def test_a_misfit_is_explained_unless_that_is_declined() -> None:
    """A diagnosis hashes the body some thirty times: under a flood of forgeries nobody wants one."""
    receiver, headers = WebhookReceiver(SECRET), headers_for(BODY, "forged")
    with pytest.raises(InvalidSignature) as explained:
        receiver.open(read_head(headers), BODY)
    assert explained.value.reason.startswith("another secret")
    with pytest.raises(InvalidSignature) as plain:
        receiver.verify(headers, BODY, with_diagnosis=False)
    assert plain.value.reason == ""
    assert explained.value.args == plain.value.args == ("the signature does not fit the body",)


def _must_not_be_called(*args: object, **kwargs: object) -> None:
    raise AssertionError("called too early")


def test_nothing_is_parsed_before_the_signature_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only then parse (webhooks notification protocol)."""
    monkeypatch.setattr(receiver_module, "decode_notification", _must_not_be_called)
    monkeypatch.setattr("orjson.loads", _must_not_be_called)
    monkeypatch.setattr("json.loads", _must_not_be_called)
    with pytest.raises(InvalidSignature):
        WebhookReceiver(SECRET).verify(headers_for(BODY, "forged"), BODY)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"{}", b'{"kind":"notification"}', b"\xff", b"[" * 5000])
def test_a_signed_body_that_is_no_notification_has_its_own_error(body: bytes) -> None:
    """Unreadable is not forged."""
    with pytest.raises(UnreadableNotification) as caught:
        WebhookReceiver(SECRET).verify(headers_for(body), body)
    assert caught.value.status == 400
    assert caught.value.args == ("the body is signed, but it is not a notification",)


def test_it_tells_when_an_old_secret_was_last_needed() -> None:
    """Rotation: once that is long ago the old secret can go."""
    now = 100.0
    record = attrs.evolve(RECORD, secret="new", previous_secrets=[SECRET])
    receiver = WebhookReceiver([record], clock=lambda: now)
    assert not receiver.verify(headers_for(BODY, "new"), BODY).used_previous_secret
    assert dict(receiver.previous_secrets_needed_at) == {}
    assert receiver.verify(headers_for(BODY), BODY).used_previous_secret
    now = 200.0
    receiver.verify(headers_for(BODY), BODY)
    assert dict(receiver.previous_secrets_needed_at) == {(ACCOUNT, APP): 200.0}


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_w9_rotation_refuses_nothing_valid_and_nothing_after_the_window(algorithm: str) -> None:
    """Old and new are accepted while both are configured, the old one not a moment longer (fault table W9)."""
    receiver = WebhookReceiver(RECORD)
    steps = [
        (RECORD, {SECRET}),
        (attrs.evolve(RECORD, previous_secrets=["new"]), {SECRET, "new"}),
        (attrs.evolve(RECORD, secret="new", previous_secrets=[SECRET]), {SECRET, "new"}),
        (attrs.evolve(RECORD, secret="new"), {"new"}),
    ]
    for number in range(10):
        for record, accepted in steps:
            receiver.replace_secrets([record])
            for secret in (SECRET, "new"):
                body = encoded(notification(content("c", number)))
                headers = headers_for(body, secret, algorithm=algorithm)  # type: ignore[arg-type]  # parametrised text
                if secret in accepted:
                    receiver.verify(headers, body)
                else:
                    with pytest.raises(InvalidSignature):
                        receiver.verify(headers, body)


def test_w10_any_text_verifies_from_its_raw_bytes() -> None:
    """Emoji, white space, floats, escapes: the demo re-serialised bodies and gave up on them (fault table W10)."""
    receiver = WebhookReceiver(SECRET)
    spellings = ["😀", "\\ud83d\\ude00", "e\\u0301", "你好", "\\/", "\\u00e9", "\u2028", "\\t", "a  b", "\\\\"]
    layouts = [
        '{{"kind":"notification","n":{n},"body":{b},"type":"{t}"}}',
        '{{ "body" : {b},\n\t"n":{n}, "type":"{t}" }}',
    ]
    numbers = ["1.0", "1e3", "-0.0", "12345678901234567890", "1.10"]
    count = 0
    for layout in layouts:
        for number in numbers:
            for spelling in spellings:
                for algorithm in ("sha1", "sha256"):
                    for repeat in range(5):
                        event = f'{{"type":"ContentEvent","message":"{spelling * (repeat + 1)}"}}'
                        text = layout.format(
                            n=number,
                            b=f'{{"changes":[{{"event":{event},"dialogId":"d"}}]}}',
                            t="ms.MessagingEventNotification",
                        )
                        body = text.encode()
                        headers = headers_for(body, algorithm=algorithm)
                        assert receiver.verify(headers, body).notification.body.changes
                        count += 1
    assert count == 1000


@given(st.binary(max_size=200), st.text(max_size=60), st.text(max_size=20), st.text(max_size=20))
@settings(max_examples=300)
def test_whatever_comes_is_refused_with_one_of_our_errors(
    body: bytes, signature: str, account: str, app: str
) -> None:
    """Never an exception of another kind, never an acceptance."""
    receiver = WebhookReceiver([RECORD])
    headers = {
        "x-liveperson-account-id": account,
        "x-liveperson-client-id": app,
        "x-liveperson-signature": signature,
    }
    for refused in (headers, headers | {"x-liveperson-account-id": ACCOUNT, "x-liveperson-client-id": APP}):
        with pytest.raises(WebhookError):
            receiver.verify(refused, body)


def test_no_secret_and_no_text_is_shown() -> None:
    """Secrets and message text appear in no error and no repr."""
    body = encoded(notification(content("c", 0, f"{CANARY} text")))
    receiver = WebhookReceiver([RECORD])
    for headers in (headers_for(body, "forged"), headers_for(body, account="x"), headers_for(body, app="x"), {}):
        with pytest.raises(WebhookError) as caught:
            receiver.verify(headers, body)
        assert_canary_absent(caught.value)
    unreadable = f'{{"text":"{CANARY}"}}'.encode()
    with pytest.raises(UnreadableNotification) as unread:
        receiver.verify(headers_for(unreadable), unreadable)
    assert_canary_absent(unread.value, RECORD, receiver, receiver._apps)
    assert CANARY not in repr(receiver.verify(headers_for(body), body))


def test_every_refusal_has_a_status() -> None:
    """401 for who it is, 400 and 413 for what it is."""
    statuses = {
        kind.__name__: kind.status
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, WebhookError)
    }
    assert set(statuses.values()) == {400, 401, 413}


def test_a_signature_made_by_the_library_is_accepted() -> None:
    """`sign` is what tests and the sandbox use."""
    headers = headers_for(BODY) | {"X-Liveperson-Signature": sign(BODY, SECRET, "sha256")}
    WebhookReceiver(SECRET).verify(headers, BODY)
