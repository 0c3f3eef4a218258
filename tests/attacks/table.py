"""The published attacks on systems like ours, and what stands against each here. SECURITY.md's tables are made of these rows."""

from __future__ import annotations

from typing import NamedTuple


class Attack(NamedTuple):
    """`attacks` are CVE numbers or other names; `tests` the functions below tests/ that try it here."""

    attacks: str
    happened: str
    defence: str
    tests: tuple[str, ...]


class Absent(NamedTuple):
    """An attack on something that novactl does not have (yet)."""

    attacks: str
    happened: str
    because: str


ATTACKS = (
    Attack(
        "CVE-2024-32498",
        "Nova, Glance, Cinder: a qcow2's external data file reads a file of the host",
        "images with a data file are refused before qemu-img sees them",
        ("test_cve_2024_32498_data_file", "test_cve_2024_32498_json_data_file"),
    ),
    Attack(
        "CVE-2015-5163",
        "Glance: a backing file reads a file of the host",
        "images with a backing file are refused",
        ("test_cve_2015_5163_backing_file",),
    ),
    Attack(
        "CVE-2024-4467",
        "`qemu-img info` itself opens what a json: name says",
        "our inspector looks first; qemu-img is told the format",
        ("test_cve_2024_4467_json_backing_file",),
    ),
    Attack(
        "CVE-2022-47951",
        "a VMDK descriptor points at a file of the host",
        "VMDK is refused whatever it is called",
        ("test_cve_2022_47951_vmdk_flat",),
    ),
    Attack(
        "CVE-2024-40767",
        "a \"raw\" image that is a qcow2 or VMDK",
        "what is declared must be what is found",
        ("test_cve_2024_40767_raw_that_is_not_raw",),
    ),
    Attack(
        "CVE-2026-24708",
        "Nova: a disk's format was probed again after a guest had written it",
        "every disk of every domain has its format declared",
        ("test_cve_2026_24708_every_disk_tells_its_format",),
    ),
    Attack(
        "CVE-2015-5162",
        "qemu-img ate the host's memory and processor",
        "qemu-img runs with limits of memory, time and output",
        ("test_cve_2015_5162_qemu_img_is_limited",),
    ),
    Attack(
        "CVE-2013-2096, CVE-2013-4463, CVE-2013-4469",
        "a small image that is a huge disk",
        "the virtual size is bounded (image.max_virtual_gb)",
        ("test_cve_2013_2096_huge_virtual_size",),
    ),
    Attack(
        "CVE-2012-5625, CVE-2013-7130",
        "a new disk showed what an old one held",
        "a disk is a new qcow2 by the server's own id, mode 0600",
        ("test_cve_2012_5625_a_new_disk_is_new",),
    ),
    Attack(
        "CVE-2026-48769",
        "Incus client: a hash from the server was used as a path",
        "only 64 hexadecimal digits name a file, and the content must match",
        ("test_cve_2026_48769_a_hash_is_no_path",),
    ),
    Attack(
        "CVE-2026-41685, CVE-2013-6437",
        "uploads or cached images fill the host's disk",
        "space is asked for before a byte, an upload is held to its offer, few at once, what is given up goes after a day",
        ("test_cve_2026_41685_an_upload_is_held_to_its_offer",),
    ),
    Attack(
        "CVE-2026-48755, CVE-2026-28384",
        "a compression algorithm's name ran a command",
        "values that name an algorithm are of a list of ours; no shell",
        ("test_cve_2026_48755_formats_are_enumerated",),
    ),
    Attack(
        "CVE-2011-4596, CVE-2012-3360, CVE-2026-23954",
        "names with ../ wrote files of the host",
        "files are named by UUID and SHA-256; names have letters, digits, '_', '.', '-'",
        ("test_cve_2011_4596_names_are_no_paths", "test_cve_2011_4596_a_nodes_names_are_no_paths"),
    ),
    Attack(
        "CVE-2012-3361, CVE-2012-3447",
        "a symbolic link in the store led outside",
        "O_NOFOLLOW and rename",
        ("test_cve_2012_3361_links_in_the_pool_are_not_followed",),
    ),
    Attack(
        "CVE-2022-37425",
        "OpenNebula: a template named files of the host",
        "no message holds a path",
        ("test_cve_2022_37425_a_specification_holds_no_path",),
    ),
    Attack(
        "CVE-2026-33897, CVE-2026-33945, CVE-2026-48749, CVE-2026-48750, CVE-2026-48752",
        "Incus: values were pasted into configuration",
        "XML is built by ElementTree from checked values",
        ("test_cve_2026_33897_values_reach_xml_as_text",),
    ),
    Attack(
        "CVE-2013-1664, CVE-2013-1665, CVE-2013-4179, CVE-2014-0179, CVE-2014-5177",
        "XML entities: a billion laughs, a file of the host",
        "callers send no XML; expat bounds what libvirt's could expand, and reads nothing from outside",
        ("test_cve_2013_1664_xml_entities",),
    ),
    Attack(
        "CVE-2025-12748",
        "libvirt: XML was parsed before the right to send it was looked at",
        "no method takes XML; sizes are bounded",
        ("test_cve_2025_12748_xml_of_callers_is_not_parsed",),
    ),
    Attack(
        "CVE-2014-5247",
        "Ganeti: a backup that all could read",
        "modes are set at creation, whatever the umask",
        (
            "test_cve_2014_5247",
            "test_cve_2014_5247_modes_do_not_depend_on_the_umask",
            "test_cve_2014_5247_an_agents_files_under_umask_0",
            "test_cve_2014_5247_a_controllers_files_under_umask_0",
        ),
    ),
    Attack(
        "CVE-2022-24302",
        "paramiko: a key's file was private only after it was written",
        "made exclusively, with mode 0600",
        ("test_cve_2022_24302_a_key_is_private_from_its_first_byte", "test_cve_2022_24302_a_pair_is_made_privately"),
    ),
    Attack(
        "CVE-2014-7230, CVE-2017-7214, CVE-2019-14433",
        "passwords and contexts in logs, errors and answers",
        "secrets are fields that say so; user data is shown as (secret); nothing secret is an argument",
        ("test_cve_2014_7230_a_secret_is_told_nowhere",),
    ),
    Attack(
        "CVE-2014-7231",
        "a password in the log of a failed command",
        "a database is named without its password",
        ("test_cve_2014_7231_the_databases_password_is_not_told",),
    ),
    Attack(
        "CVE-2015-7945",
        "Ganeti: a secret in the results of jobs",
        "operations record no secret field",
        ("test_cve_2015_7945_what_an_operation_tells_holds_no_secret",),
    ),
    Attack(
        "CVE-2015-7944",
        "Ganeti: renegotiating TLS took the daemon down",
        "a handshake has two seconds; queues, backlog and sockets are bounded",
        ("test_cve_2015_7944_a_flood_of_handshakes",),
    ),
    Attack(
        "Ganeti to 2.10",
        "every node held every key: one node was the cluster",
        "a node has its own key only, and that admits nobody",
        ("test_ganeti_2_10_a_nodes_key_commands_no_node",),
    ),
    Attack(
        "CVE-2023-54391, CVE-2023-43320",
        "Proxmox: an extra field of the request skipped the password",
        "rights follow from the CURVE key alone, asked for each message",
        ("test_cve_2023_54391_what_a_request_says_of_itself_gives_no_right",),
    ),
    Attack(
        "CVE-2013-0335",
        "a console's address showed another server",
        "a console is of one server's one run, and ends with it",
        ("test_cve_2013_0335_a_console_shows_one_server_only",),
    ),
    Attack(
        "CVE-2020-15166, CVE-2019-13132, CVE-2019-6250, CVE-2021-20237",
        "libzmq: starved or overflowed before authentication",
        "4.3.3 or newer, or the agent does not start",
        ("test_cve_2020_15166_an_older_libzmq_is_not_used",),
    ),
    Attack(
        "CVE-2023-48795",
        "SSH: Terrapin",
        "paramiko 3.4 or newer",
        ("test_cve_2023_48795_paramiko_is_new_enough",),
    ),
    Attack(
        "CVE-2013-2256, CVE-2012-3371, CVE-2013-1838",
        "quotas gone round; counts and hints without end",
        "a quota holds in the transaction that claims",
        ("test_cve_2013_2256_a_quota_holds_for_many_at_once",),
    ),
    Attack(
        "GHSA-p3x5-mvmp-5f35",
        "LXD: wildcards of LIKE listed others' projects",
        "names are compared, not matched",
        ("test_ghsa_p3x5_mvmp_5f35_a_pattern_names_nothing",),
    ),
)

ABSENT = (
    Absent(
        "CVE-2015-0259, CVE-2021-3654, CVE-2015-9543, CVE-2017-18635",
        "web consoles: hijacked, redirected, their token logged, a name as script",
        "no web console: `novactl server console` goes over the agent's own connection and has no token",
    ),
    Absent(
        "CVE-2013-6419, CVE-2014-3517",
        "the metadata service answered for others' servers",
        "no metadata service: cloud-init reads a seed disk",
    ),
    Absent(
        "CVE-2020-17376, CVE-2015-3241, CVE-2015-3280, CVE-2016-7498",
        "disks and processes mixed up by live migration and resize",
        "no migration and no resize",
    ),
    Absent(
        "CVE-2015-7548, CVE-2016-2140, CVE-2025-13193",
        "snapshots and migrated disks read files of the host, or could be read by all",
        "no snapshots and no migration of disks",
    ),
    Absent(
        "CVE-2023-2088",
        "a detached volume's device was another server's next",
        "no volumes",
    ),
    Absent(
        "CVE-2017-16239, CVE-2017-17051",
        "rebuild went round the scheduler, or doubled allocations",
        "no rebuild; an evacuated server is placed and claimed like a new one",
    ),
    Absent(
        "CVE-2022-35508, CVE-2022-35507, CVE-2022-31358, CVE-2025-56534",
        "an HTTP API fetched URLs, took line ends, echoed script",
        "no HTTP API",
    ),
    Absent(
        "CVE-2026-48751, CVE-2026-55621, CVE-2026-55622, CVE-2026-84165",
        "rights on one object used through another: copies, guest agents",
        "whoever has an operator's key has all projects (see below); nothing is copied between them, and no guest agent is spoken to",
    ),
)
