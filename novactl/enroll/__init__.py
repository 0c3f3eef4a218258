"""Making a machine a node over SSH: facts (read-only), plan (pure), steps (each with its undo).

| file | what |
|---|---|
| `request.py` | what a caller asks for, and what it is answered |
| `shell.py`, `ssh.py` | a root shell on a machine: this one, or one behind SSH whose host key was verified |
| `facts.py` | one read-only script and the pure parsers of its answer |
| `distro.py` | what a node needs and which package has it: apt, dnf, zypper |
| `plan.py` | facts and goal -> findings and changes; empty when already enrolled |
| `steps.py`, `service.py` | the changes, each idempotent, each with its undo |
| `unit.py` | the systemd unit, and the supervisor for machines without systemd |
| `bundle.py` | the agent as a reproducible zipapp |

What a node holds afterwards: `paths.py`.
"""
