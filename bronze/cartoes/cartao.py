"""Cards as the source has them; card and account may belong to different members. One row per card."""

from bronze.cartoes import associado, conta
from conf.contract import Column, Pii, Reference, Table, fake

TABLE = Table(
    __name__,
    __doc__,
    columns=(
        Column("id", "bigint", "Card id", key=True),
        Column(
            "num_cartao",
            "string",
            "Card number, 13 to 19 digits",
            nullable=True,
            pii=Pii.CARD,
            fake=fake("card_number"),
        ),
        Column(
            "nom_impresso",
            "string",
            "Name printed on the card",
            nullable=True,
            pii=Pii.DIRECT,
            fake=fake("printed_name", "id_associado", "nome", "sobrenome"),
        ),
        Column(
            "data_criacao",
            "timestamp_ntz",
            "When the card was issued",
            nullable=True,
            optional=True,
            fake=fake("after", "id_conta", "data_criacao"),
        ),
        Column("id_conta", "bigint", "Account the card draws on", reference=Reference(conta.TABLE)),
        Column(
            "id_associado",
            "bigint",
            "Member who holds the card",
            reference=Reference(associado.TABLE),
            fake=fake("mostly_same", "id_conta", "id_associado"),
        ),
    ),
    fake_rows=0.08,
)
