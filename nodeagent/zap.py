"""ZAP (https://rfc.zeromq.org/spec/27/): who may finish a CURVE handshake. Pure: frames in, frames out.

The loop itself answers these requests. Were the loop to stop, nobody would be let in: every ROUTER has a
non-empty domain and ZAP_ENFORCE_DOMAIN, without which libzmq admits any key when no handler answers.
"""

from typing import Callable, List, Sequence

from nodeagent import wire

VERSION = b"1.0"
ENDPOINT = "inproc://zeromq.zap.01"
_DOMAIN = wire.ZAP_DOMAIN.encode()


def answer(frames: Sequence[bytes], admitted: Callable[[str], bool], z85: Callable[[bytes], bytes]) -> List[bytes]:
    """The reply to one ZAP request: 200 with the Z85 key as user id, or 400.

    `frames`: version, request id, domain, address, identity, mechanism, credentials. `admitted` is asked with the
    client's public key in Z85; `z85` encodes 32 bytes.
    """
    request_id = frames[1] if len(frames) > 1 else b""
    refusal = [VERSION, request_id, b"400", b"refused", b"", b""]
    if len(frames) != 7 or frames[0] != VERSION or frames[2] != _DOMAIN:
        return refusal
    if frames[5] != b"CURVE" or len(frames[6]) != 32:
        return refusal
    key = z85(frames[6])
    if not admitted(key.decode("ascii")):
        return refusal
    return [VERSION, request_id, b"200", b"OK", key, b""]
