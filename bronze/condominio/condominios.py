"""Condominiums as their files have them, numbered in order of arrival. One row per line."""

from conf.contract import Column, Csv, Files, Table, fake

TABLE = Table(
    __name__,
    __doc__,
    # Addresses contain commas without quotes around them.
    files=Files("condominios*.csv", Csv(rest=True)),
    columns=(
        Column("condominio_id", "bigint", "Condominium id", key=True, serial=True),
        Column("nome", "string", "Name", nullable=True, fake=fake("words", "neighborhood")),
        Column("endereco", "string", "Address", nullable=True, fake=fake("words", "address")),
    ),
    fake_rows=0.005,
)
