"""Properties as their files have them, numbered in order of arrival. One row per line."""

from bronze.condominio import condominios
from conf.contract import Column, Files, Reference, Table, fake

TABLE = Table(
    __name__,
    __doc__,
    files=Files("imoveis*.csv"),
    columns=(
        Column("imovel_id", "bigint", "Property id", key=True, serial=True),
        Column(
            "tipo",
            "string",
            "Property type",
            nullable=True,
            labels=("Apartamento", "Casa", "Duplex"),
            fake=fake("label", nulls=0.01),
        ),
        Column("condominio_id", "bigint", "Condominium of the property", reference=Reference(condominios.TABLE)),
        Column("valor", "decimal(15,2)", "Value in reais", nullable=True, fake=fake("amount")),
    ),
    fake_rows=0.1,
)
