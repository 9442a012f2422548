"""Card movements as the source has them. One row per movement."""

from bronze.cartoes import cartao
from conf.contract import Column, Reference, Table, fake

TABLE = Table(
    __name__,
    __doc__,
    columns=(
        Column("id", "bigint", "Movement id", key=True),
        Column("vlr_transacao", "decimal(10,2)", "Amount in reais; a refund is negative", fake=fake("amount")),
        Column("des_transacao", "string", "Description", nullable=True, fake=fake("description", nulls=0.01)),
        Column(
            "data_movimento", "timestamp_ntz", "When the card moved", fake=fake("after", "id_cartao", "data_criacao")
        ),
        Column("id_cartao", "bigint", "Card that moved", reference=Reference(cartao.TABLE)),
    ),
    fake_rows=1.0,
)
