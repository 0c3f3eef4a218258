"""Projects, groups, aggregates; a node's sums and facts beside it, its files in a table of their own

The sums and shapes are left empty here: novactl.db.migrate fills in whatever follows from other rows. Rows are moved so that it can
be done again where an upgrade was interrupted (MariaDB).
"""

import json
import time

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'


def upgrade() -> None:
    op.create_table('aggregate',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('metadata', sa.Text(), nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_aggregate')),
    sa.UniqueConstraint('name', name=op.f('uq_aggregate_name'))
    )
    op.create_table('project',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('description', sa.Text(), nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.Column('servers_used', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('cores_used', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('ram_mb_used', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('disk_gb_used', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('servers_max', sa.BigInteger(), server_default='-1', nullable=False),
    sa.Column('cores_max', sa.BigInteger(), server_default='-1', nullable=False),
    sa.Column('ram_mb_max', sa.BigInteger(), server_default='-1', nullable=False),
    sa.Column('disk_gb_max', sa.BigInteger(), server_default='-1', nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_project')),
    sa.UniqueConstraint('name', name=op.f('uq_project_name'))
    )
    op.create_table('quota',
    sa.Column('project_id', sa.String(length=36), nullable=False),
    sa.Column('resource', sa.String(length=64), nullable=False),
    sa.Column('max_amount', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('project_id', 'resource', name=op.f('pk_quota'))
    )
    op.create_table('shape',
    sa.Column('id', sa.String(length=40), nullable=False),
    sa.Column('facts', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_shape'))
    )
    op.create_table('aggregate_node',
    sa.Column('aggregate_id', sa.String(length=36), nullable=False),
    sa.Column('node_id', sa.String(length=36), nullable=False),
    sa.ForeignKeyConstraint(['aggregate_id'], ['aggregate.id'], name=op.f('fk_aggregate_node_aggregate_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['node_id'], ['node.id'], name=op.f('fk_aggregate_node_node_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('aggregate_id', 'node_id', name=op.f('pk_aggregate_node'))
    )
    with op.batch_alter_table('aggregate_node', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_aggregate_node_node_id'), ['node_id'], unique=False)

    op.create_table('fitting',
    sa.Column('consumer_id', sa.String(length=36), nullable=False),
    sa.Column('node_id', sa.String(length=36), nullable=False),
    sa.Column('body', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['node_id'], ['node.id'], name=op.f('fk_fitting_node_id')),
    sa.PrimaryKeyConstraint('consumer_id', 'node_id', name=op.f('pk_fitting'))
    )
    with op.batch_alter_table('fitting', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_fitting_node_id'), ['node_id'], unique=False)

    op.create_table('node_file',
    sa.Column('node_id', sa.String(length=36), nullable=False),
    sa.Column('report', sa.Text(), nullable=True),
    sa.Column('undo', sa.Text(), nullable=False),
    sa.Column('hardware', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['node_id'], ['node.id'], name=op.f('fk_node_file_node_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('node_id', name=op.f('pk_node_file'))
    )
    op.create_table('server_group',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('project_id', sa.String(length=36), nullable=False),
    sa.Column('policy', sa.String(length=32), nullable=False),
    sa.Column('scope', sa.String(length=64), nullable=False),
    sa.Column('max_per_domain', sa.BigInteger(), nullable=False),
    sa.Column('version', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.ForeignKeyConstraint(['project_id'], ['project.id'], name=op.f('fk_server_group_project_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_server_group')),
    sa.UniqueConstraint('name', name=op.f('uq_server_group_name'))
    )
    _first_project()

    with op.batch_alter_table('claim', schema=None) as batch_op:
        batch_op.add_column(sa.Column('project_id', sa.String(length=36), server_default='default', nullable=False))
        batch_op.create_index(batch_op.f('ix_claim_node_id'), ['node_id'], unique=False)

    with op.batch_alter_table('flavor', schema=None) as batch_op:
        batch_op.add_column(sa.Column('specs', sa.Text(), server_default='{}', nullable=False))
        batch_op.add_column(sa.Column('description', sa.Text(), server_default='', nullable=False))

    with op.batch_alter_table('image', schema=None) as batch_op:
        batch_op.add_column(sa.Column('properties', sa.Text(), server_default='{}', nullable=False))

    with op.batch_alter_table('inventory', schema=None) as batch_op:
        batch_op.add_column(sa.Column('cached', sa.BigInteger(), server_default='0', nullable=False))

    with op.batch_alter_table('keypair', schema=None) as batch_op:
        batch_op.add_column(sa.Column('project_id', sa.String(length=36), server_default='default', nullable=False))
        batch_op.create_foreign_key(batch_op.f('fk_keypair_project_id'), 'project', ['project_id'], ['id'])

    _node()

    with op.batch_alter_table('server', schema=None) as batch_op:
        batch_op.add_column(sa.Column('project_id', sa.String(length=36), server_default='default', nullable=False))
        batch_op.add_column(sa.Column('group_id', sa.String(length=36), server_default='', nullable=False))
        batch_op.add_column(sa.Column('wants', sa.Text(), server_default='{}', nullable=False))
        batch_op.create_index(batch_op.f('ix_server_group_id'), ['group_id'], unique=False)


def _first_project() -> None:
    """Whose everything is that was there before there were projects."""
    bind = op.get_bind()
    if not bind.execute(sa.text("SELECT id FROM project WHERE id = 'default'")).all():
        bind.execute(
            sa.text("INSERT INTO project (id, name, description, created_at) VALUES ('default', 'default', '', :at)"), {"at": time.time()})


def _node() -> None:
    bind = op.get_bind()
    if {'report', 'undo'} <= {column["name"] for column in sa.inspect(bind).get_columns("node")}:
        node, file = (sa.table(name, *map(sa.column, ('id', 'node_id', 'report', 'undo'))) for name in ('node', 'node_file'))
        missing = sa.select(node.c.id, node.c.report, node.c.undo).where(node.c.id.not_in(sa.select(file.c.node_id)))
        bind.execute(sa.insert(file).from_select(['node_id', 'report', 'undo'], missing))
    reports = bind.execute(sa.text("SELECT node_id, report FROM node_file")).all()
    as_wanted = {"recreate": "always", "partial_reordering": [_NODE_COLUMNS]} if op.get_bind().dialect.name == "sqlite" else {}
    with op.batch_alter_table('node', schema=None, **as_wanted) as batch_op:
        batch_op.add_column(sa.Column('shape', sa.String(length=40), server_default='', nullable=False))
        batch_op.add_column(sa.Column('servers', sa.BigInteger(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('failed_builds', sa.BigInteger(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('vcpu_capacity', sa.BigInteger(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('vcpu_used', sa.BigInteger(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('vcpu_max_unit', sa.BigInteger(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('memory_mb_capacity', sa.BigInteger(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('memory_mb_used', sa.BigInteger(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('memory_mb_max_unit', sa.BigInteger(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('disk_gb_capacity', sa.BigInteger(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('disk_gb_used', sa.BigInteger(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('disk_gb_max_unit', sa.BigInteger(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('odd', sa.Integer(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('shared_disk', sa.String(length=64), server_default='', nullable=False))
        batch_op.add_column(sa.Column('traits', sa.Text(), server_default='[]', nullable=False))
        batch_op.add_column(sa.Column('dedicated_cpus', sa.Text(), server_default='', nullable=False))
        batch_op.add_column(sa.Column('load_1m', sa.Double(), nullable=True))
        batch_op.add_column(sa.Column('memory_used_mb', sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column('disk_used_gb', sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column('report_key', sa.String(length=40), server_default='', nullable=False))
        batch_op.create_index(batch_op.f('ix_node_shape'), ['shape'], unique=False)
        batch_op.drop_column('report')
        batch_op.drop_column('undo')
    for id_, report in reports:
        measured = json.loads(report) if report else {}
        bind.execute(
            sa.text("UPDATE node SET load_1m=:load, memory_used_mb=:memory, disk_used_gb=:disk WHERE id=:id"),
            {"id": id_, "load": measured.get("load_1m"), "memory": measured.get("memory_used_mb"), "disk": measured.get("disk_used_gb")})


# What placing reads comes first: SQLite walks over the columns before the one it wants.
_NODE_COLUMNS = (
    'id', 'state', 'shape', 'generation', 'reported_at', 'silent_since', 'servers', 'failed_builds',
    'vcpu_capacity', 'vcpu_used', 'vcpu_max_unit', 'memory_mb_capacity', 'memory_mb_used', 'memory_mb_max_unit',
    'disk_gb_capacity', 'disk_gb_used', 'disk_gb_max_unit', 'odd', 'shared_disk', 'name', 'reason', 'address', 'public_key', 'ssh',
    'host_key', 'zone', 'architecture', 'agent_version', 'labels', 'traits', 'dedicated_cpus', 'load_1m', 'memory_used_mb',
    'disk_used_gb', 'report_key', 'created_at',
)
