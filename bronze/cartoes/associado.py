"""Members of the cooperative as the source has them. One row per member."""

from conf.contract import Column, Pii, Table, fake

TABLE = Table(
    __name__,
    __doc__,
    columns=(
        Column("id", "bigint", "Member id", key=True),
        Column("nome", "string", "First name", nullable=True, pii=Pii.DIRECT, fake=fake("words", "first_name")),
        Column("sobrenome", "string", "Last name", nullable=True, pii=Pii.DIRECT, fake=fake("surname")),
        Column(
            "idade",
            "integer",
            "Age in years",
            nullable=True,
            pii=Pii.INDIRECT,
            fake=fake("between", 18, 95, nulls=0.01),
        ),
        Column(
            "email",
            "string",
            "E-mail address",
            nullable=True,
            pii=Pii.DIRECT,
            fake=fake("email", "nome", "sobrenome", nulls=0.02),
        ),
    ),
    fake_rows=0.05,
)
