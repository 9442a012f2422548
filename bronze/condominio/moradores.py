"""Residents as their files have them, numbered in order of arrival. One row per line."""

from bronze.condominio import condominios
from conf.contract import Column, Files, Pii, Reference, Table, fake

TABLE = Table(
    __name__,
    __doc__,
    files=Files("moradores*.csv"),
    columns=(
        Column("morador_id", "bigint", "Resident id", key=True, serial=True),
        Column("nome", "string", "Full name", nullable=True, pii=Pii.DIRECT, fake=fake("words", "name")),
        Column("condominio_id", "bigint", "Condominium of the resident", reference=Reference(condominios.TABLE)),
        Column(
            "data_registro", "date", "When the resident registered", nullable=True, fake=fake("moment", "2020-01-01")
        ),
    ),
    fake_rows=0.1,
)
