"""Transactions as their files have them, numbered in order of arrival. One row per line."""

from bronze.condominio import imoveis, moradores
from conf.contract import Column, Files, Reference, Table, fake

TABLE = Table(
    __name__,
    __doc__,
    files=Files("transacoes*.csv"),
    columns=(
        Column("transacao_id", "bigint", "Transaction id", key=True, serial=True),
        Column("imovel_id", "bigint", "Property", reference=Reference(imoveis.TABLE)),
        Column("morador_id", "bigint", "Resident", reference=Reference(moradores.TABLE)),
        Column("data_transacao", "date", "Day of the transaction", fake=fake("moment", "2023-01-01")),
        Column("valor_transacao", "decimal(15,2)", "Amount in reais", fake=fake("amount")),
    ),
    fake_rows=1.0,
)
