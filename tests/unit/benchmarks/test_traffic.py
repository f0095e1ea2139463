"""Messages of an enrollment are counted from nats-server's trace log."""

from benchmarks.traffic import count

START = '[1] 2026/11/27 08:20:35.9 [TRC] 127.0.0.1:36194 - cid:58 - "v2.16.0:python3:'
LOG = f"""
{START}issuer-0" - "ISSUER/nkey:U1" - <<- [HPUB cert.local.4f.issued _INBOX.U1.a 300 700]
{START}issuer-0" - "ISSUER/nkey:U1" - <<- MSG_PAYLOAD: ["NATS/1.0"]
{START}issuer-1" - "ISSUER/nkey:U2" - <<- [PUB $JS.API.DIRECT.GET.CERTS.key.55 _INBOX.U2.b 0]
{START}issuer-0" - "ISSUER/nkey:U1" - ->> [MSG _INBOX.U1.a 3 37]
{START}validator-0" - "VALIDATOR/nkey:U3" - <<- [PUB $JS.ACK.ENROLL_0.validator.1.5.1.1.2  4]
{START}validator-0" - "VALIDATOR/nkey:U3" - <<- [PUB $JS.API.CONSUMER.MSG.NEXT.E.v _INBOX.U3.c 40]
{START}validator-0" - "VALIDATOR/nkey:U3" - <<- [HPUB gw.gateway-0 300 700]
{START}validator-0" - "VALIDATOR/nkey:U3" - <<- PING
"""


def test_each_message_counts_for_its_process_and_kind() -> None:
    messages, sizes = count(LOG)

    assert messages == {
        "issuer": {"append": 1, "direct get": 1, "received": 1},
        "validator": {"acknowledgement": 1, "pull": 1, "hint": 1},
    }
    assert sizes == {"issuer": 737, "validator": 744}


def test_other_lines_count_for_nothing() -> None:
    assert count("[1] starting\n\n") == ({}, {})
