"""The first schema"""

import sqlalchemy as sa
from alembic import op

revision = '0001'
down_revision = None


def upgrade() -> None:
    op.create_table('event',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('at', sa.Double(), nullable=False),
    sa.Column('object_kind', sa.String(length=16), nullable=False),
    sa.Column('object_id', sa.String(length=36), nullable=False),
    sa.Column('object_name', sa.String(length=64), nullable=False),
    sa.Column('operation_id', sa.String(length=36), nullable=False),
    sa.Column('event', sa.String(length=64), nullable=False),
    sa.Column('actor', sa.Text(), nullable=False),
    sa.Column('detail', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_event'))
    )
    with op.batch_alter_table('event', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_event_object_id'), ['object_id'], unique=False)

    op.create_table('flavor',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('vcpus', sa.BigInteger(), nullable=False),
    sa.Column('memory_mb', sa.BigInteger(), nullable=False),
    sa.Column('disk_gb', sa.BigInteger(), nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_flavor')),
    sa.UniqueConstraint('name', name=op.f('uq_flavor_name'))
    )
    op.create_table('image',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('sha256', sa.String(length=64), nullable=False),
    sa.Column('disk_format', sa.String(length=16), nullable=False),
    sa.Column('size_bytes', sa.BigInteger(), nullable=False),
    sa.Column('virtual_size_bytes', sa.BigInteger(), nullable=False),
    sa.Column('architecture', sa.String(length=32), nullable=False),
    sa.Column('source', sa.Text(), nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_image')),
    sa.UniqueConstraint('name', name=op.f('uq_image_name'))
    )
    op.create_table('keypair',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('key_type', sa.String(length=64), nullable=False),
    sa.Column('public_key', sa.Text(), nullable=False),
    sa.Column('fingerprint', sa.Text(), nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_keypair')),
    sa.UniqueConstraint('name', name=op.f('uq_keypair_name'))
    )
    op.create_table('meta',
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('value', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('key', name=op.f('pk_meta'))
    )
    op.create_table('node',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('address', sa.Text(), nullable=False),
    sa.Column('public_key', sa.String(length=40), nullable=False),
    sa.Column('ssh', sa.Text(), nullable=False),
    sa.Column('host_key', sa.Text(), nullable=False),
    sa.Column('zone', sa.String(length=64), nullable=False),
    sa.Column('architecture', sa.String(length=32), nullable=False),
    sa.Column('agent_version', sa.String(length=32), nullable=False),
    sa.Column('labels', sa.Text(), nullable=False),
    sa.Column('generation', sa.BigInteger(), nullable=False),
    sa.Column('report', sa.Text(), nullable=True),
    sa.Column('reported_at', sa.Double(), nullable=True),
    sa.Column('silent_since', sa.Double(), nullable=True),
    sa.Column('undo', sa.Text(), nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_node')),
    sa.UniqueConstraint('name', name=op.f('uq_node_name'))
    )
    op.create_table('operation',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('kind', sa.String(length=64), nullable=False),
    sa.Column('object_kind', sa.String(length=16), nullable=False),
    sa.Column('object_id', sa.String(length=36), nullable=False),
    sa.Column('open_object_id', sa.String(length=36), nullable=True),
    sa.Column('object_name', sa.String(length=64), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('epoch', sa.BigInteger(), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('lease_until', sa.Double(), nullable=False),
    sa.Column('actor', sa.Text(), nullable=False),
    sa.Column('record', sa.Text(), nullable=False),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('decision', sa.Text(), nullable=True),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.Column('ended_at', sa.Double(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_operation')),
    sa.UniqueConstraint('open_object_id', name=op.f('uq_operation_open_object_id'))
    )
    with op.batch_alter_table('operation', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_operation_ended_at'), ['ended_at'], unique=False)
        batch_op.create_index(batch_op.f('ix_operation_object_id'), ['object_id'], unique=False)

    op.create_table('claim',
    sa.Column('consumer_id', sa.String(length=36), nullable=False),
    sa.Column('node_id', sa.String(length=36), nullable=False),
    sa.Column('resource_class', sa.String(length=64), nullable=False),
    sa.Column('consumer_kind', sa.String(length=16), nullable=False),
    sa.Column('amount', sa.BigInteger(), nullable=False),
    sa.CheckConstraint('amount > 0', name=op.f('ck_claim_amount')),
    sa.ForeignKeyConstraint(['node_id'], ['node.id'], name=op.f('fk_claim_node_id')),
    sa.PrimaryKeyConstraint('consumer_id', 'node_id', 'resource_class', name=op.f('pk_claim'))
    )
    op.create_table('inventory',
    sa.Column('node_id', sa.String(length=36), nullable=False),
    sa.Column('resource_class', sa.String(length=64), nullable=False),
    sa.Column('total', sa.BigInteger(), nullable=False),
    sa.Column('reserved', sa.BigInteger(), nullable=False),
    sa.Column('ratio_milli', sa.BigInteger(), nullable=False),
    sa.Column('min_unit', sa.BigInteger(), nullable=False),
    sa.Column('max_unit', sa.BigInteger(), nullable=False),
    sa.Column('step_size', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['node_id'], ['node.id'], name=op.f('fk_inventory_node_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('node_id', 'resource_class', name=op.f('pk_inventory'))
    )
    op.create_table('operation_step',
    sa.Column('operation_id', sa.String(length=36), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('started_at', sa.Double(), nullable=False),
    sa.Column('ended_at', sa.Double(), nullable=True),
    sa.ForeignKeyConstraint(['operation_id'], ['operation.id'], name=op.f('fk_operation_step_operation_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('operation_id', 'attempt', 'position', name=op.f('pk_operation_step'))
    )
    op.create_table('server',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('live_name', sa.String(length=64), nullable=True),
    sa.Column('vm_state', sa.String(length=16), nullable=False),
    sa.Column('task_state', sa.String(length=32), nullable=False),
    sa.Column('power_state', sa.String(length=16), nullable=False),
    sa.Column('node_id', sa.String(length=36), nullable=True),
    sa.Column('epoch', sa.BigInteger(), nullable=False),
    sa.Column('operation_id', sa.String(length=36), nullable=False),
    sa.Column('flavor_name', sa.String(length=64), nullable=False),
    sa.Column('vcpus', sa.BigInteger(), nullable=False),
    sa.Column('memory_mb', sa.BigInteger(), nullable=False),
    sa.Column('disk_gb', sa.BigInteger(), nullable=False),
    sa.Column('image_id', sa.String(length=36), nullable=False),
    sa.Column('image_name', sa.String(length=64), nullable=False),
    sa.Column('image_sha256', sa.String(length=64), nullable=False),
    sa.Column('architecture', sa.String(length=32), nullable=False),
    sa.Column('keypair_name', sa.String(length=64), nullable=False),
    sa.Column('public_key', sa.Text(), nullable=False),
    sa.Column('user_data', sa.Text(), nullable=False),
    sa.Column('zone', sa.String(length=64), nullable=False),
    sa.Column('mac', sa.String(length=17), nullable=False),
    sa.Column('addresses', sa.Text(), nullable=False),
    sa.Column('fault', sa.Text(), nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.Column('updated_at', sa.Double(), nullable=False),
    sa.Column('launched_at', sa.Double(), nullable=True),
    sa.Column('deleted_at', sa.Double(), nullable=True),
    sa.ForeignKeyConstraint(['node_id'], ['node.id'], name=op.f('fk_server_node_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_server')),
    sa.UniqueConstraint('live_name', name=op.f('uq_server_live_name'))
    )
    with op.batch_alter_table('server', schema=None) as batch_op:
        batch_op.create_index('ix_server_live_created', ['deleted_at', 'created_at'], unique=False)
        batch_op.create_index(batch_op.f('ix_server_node_id'), ['node_id'], unique=False)

