"""Accounts as the source has them; a member has any number of them. One row per account."""

from bronze.cartoes import associado
from conf.contract import Column, Reference, Table, fake

TABLE = Table(
    __name__,
    __doc__,
    columns=(
        Column("id", "bigint", "Account id", key=True),
        Column(
            "tipo",
            "string",
            "Account type",
            nullable=True,
            labels=("corrente", "poupanca", "salario", "investimento"),
            fake=fake("label"),
        ),
        Column(
            "data_criacao",
            "timestamp_ntz",
            "When the account was opened",
            nullable=True,
            fake=fake("moment", "2012-01-01"),
        ),
        Column("id_associado", "bigint", "Member who holds the account", reference=Reference(associado.TABLE)),
    ),
    fake_rows=0.06,
)
