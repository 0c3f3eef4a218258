"""Reasons, deadlines, progress and numbers of operations; keys of admins; leases; fencing; who changed a node's state, and when"""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
    op.create_table('ticket',
    sa.Column('id', big, autoincrement=True, nullable=False),
    sa.Column('operation_id', sa.String(length=36), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_ticket')),
    sa.UniqueConstraint('operation_id', name=op.f('uq_ticket_operation_id')),
    sqlite_autoincrement=True
    )
    op.create_table('lease',
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('until', sa.Double(), nullable=False),
    sa.Column('epoch', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_lease'))
    )
    op.create_table('admin_key',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('public_key', sa.String(length=40), nullable=False),
    sa.Column('role', sa.String(length=16), nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.Column('created_by', sa.Text(), nullable=False),
    sa.Column('revoked_at', sa.Double(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_admin_key')),
    sa.UniqueConstraint('name', name=op.f('uq_admin_key_name')),
    sa.UniqueConstraint('public_key', name=op.f('uq_admin_key_public_key'))
    )
    for table, columns in {
        'node': (
            sa.Column('state_since', sa.Double(), nullable=True),
            sa.Column('state_by', sa.Text(), server_default='', nullable=False),
            sa.Column('boot_id', sa.String(length=64), server_default='', nullable=False),
            sa.Column('admins_version', sa.BigInteger(), server_default='0', nullable=False),
            sa.Column('next_public_key', sa.String(length=40), server_default='', nullable=False),
            sa.Column('lease_until', sa.Double(), nullable=True),
            sa.Column('armed_s', sa.Double(), nullable=True),
            sa.Column('fenced_at', sa.Double(), nullable=True),
        ),
        'node_file': (sa.Column('fencing', sa.Text(), server_default='{}', nullable=False),),
        'server': (sa.Column('ha', sa.Integer(), server_default='0', nullable=False),),
        'operation': (
            sa.Column('reason', sa.Text(), server_default='', nullable=False),
            sa.Column('actor_key', sa.String(length=40), server_default='', nullable=False),
            sa.Column('deadline', sa.Double(), nullable=True),
            sa.Column('progress', sa.Text(), server_default='', nullable=False),
            sa.Column('seq', sa.BigInteger(), server_default='0', nullable=False),
        ),
        'event': (sa.Column('reason', sa.Text(), server_default='', nullable=False),),
    }.items():
        for column in columns:
            op.add_column(table, column)
    op.create_index(op.f('ix_operation_created_at'), 'operation', ['created_at'], unique=False)
