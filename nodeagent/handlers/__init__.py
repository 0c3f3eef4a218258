"""What the agent does, one function for each row of wire.METHODS, one file for each noun.

A handler gets (call, args, payload) and returns (result, payload or None); it raises `Refused`. `call.agent` is the
node; a mutation's fence and ledger are done with before the handler runs. A streaming handler starts the stream.
"""

from typing import Any, Callable, Mapping, Optional, Tuple

from nodeagent.handlers import agent, console, disk, domain, image, inventory, keys, lease, node, seed

Handler = Callable[[Any, Any, Optional[bytes]], Tuple[Any, Optional[bytes]]]

HANDLERS: Mapping[str, Handler] = {
    "agent.ping": agent.ping,
    "agent.hello": agent.hello,
    "lease.renew": lease.renew,
    "keys.write": keys.write,
    "keys.next": keys.make_next,
    "keys.serve": keys.serve,
    "keys.commit": keys.commit,
    "keys.drop": keys.drop,
    "node.prepare": node.prepare,
    "node.unprepare": node.unprepare,
    "node.adopt": node.adopt,
    "inventory.read": inventory.read,
    "inventory.watch": inventory.watch,
    "image.begin": image.begin,
    "image.chunk": image.chunk,
    "image.finish": image.finish,
    "image.delete": image.delete,
    "image.list": image.list_cached,
    "disk.create": disk.create,
    "disk.delete": disk.delete,
    "seed.write": seed.write,
    "seed.delete": seed.delete,
    "domain.define": domain.define,
    "domain.undefine": domain.undefine,
    "domain.start": domain.start,
    "domain.stop": domain.stop,
    "domain.destroy": domain.destroy,
    "domain.reboot": domain.reboot,
    "domain.state": domain.state,
    "domain.list": domain.list_all,
    "domain.specs": domain.list_specs,
    "domain.wild": domain.wild,
    "domain.adopt": domain.adopt,
    "domain.release": domain.release,
    "console.log": console.log,
    "console.open": console.open_stream,
    "console.input": console.write,
    "console.credit": console.credit,
    "console.close": console.close,
}
