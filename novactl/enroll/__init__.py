"""Making a machine a node over SSH: facts (read-only), plan (pure), steps (each with its undo).

| file | what |
|---|---|
| `request.py` | what a caller asks for, and what it is answered |
| `shell.py`, `ssh.py`, `access.py` | a root shell on a machine: this one, or one behind SSH whose host key was verified |
| `facts.py` | one read-only script and the pure parsers of its answer |
| `distro.py` | what a node needs and which package has it: apt, dnf, zypper |
| `goal.py` | what the machine is to become, and the texts of the files that follow |
| `checks.py` | preflight: every finding at once, each with its fix |
| `plan.py` | facts and goal -> findings and changes; no changes when already enrolled |
| `site.py` | what the machine was before: what undoing and removing put back |
| `steps.py`, `service.py` | the changes, each idempotent, each with its undo |
| `unit.py` | the systemd unit, and the supervisor for machines without systemd |
| `bundle.py` | the agent as a reproducible zipapp |
| `paths.py`, `log.py` | where things are on a node; the log of what was run there |

`novactl.conductor.enroll_node` puts them together, `enrolment` and `remove_node` there are the sagas.
"""
