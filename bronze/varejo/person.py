"""People: individual customers and contacts of stores. One row per person."""

from bronze.varejo import export
from conf.contract import Column, Pii, Table, fake

SURVEY = '<IndividualSurvey xmlns="urn:survey"><TotalPurchaseYTD>0</TotalPurchaseYTD>; a & b</IndividualSurvey>'

TABLE = Table(
    __name__,
    __doc__,
    files=export("Person.Person"),
    columns=(
        Column("BusinessEntityID", "bigint", "Person id", key=True),
        Column("PersonType", "string", "Individual or store contact", labels=("IN", "SC"), fake=fake("label")),
        Column("NameStyle", "boolean", "Whether the last name comes first", fake=fake("between", 0, 1)),
        Column("Title", "string", "Title", nullable=True, pii=Pii.DIRECT, fake=fake("choice", "Mr.", "Ms.", nulls=0.9)),
        Column(
            "FirstName", "string", "First name", pii=Pii.DIRECT, fake=fake("choice", "Ana", "João", "Zoë", "D'Arcy")
        ),
        Column(
            "MiddleName",
            "string",
            "Middle name",
            nullable=True,
            pii=Pii.DIRECT,
            fake=fake("choice", "A", "B.", nulls=0.4),
        ),
        Column("LastName", "string", "Last name", pii=Pii.DIRECT, fake=fake("surname")),
        Column("Suffix", "string", "Suffix of the name", nullable=True, pii=Pii.DIRECT),
        Column(
            "EmailPromotion",
            "integer",
            "Which promotional e-mails the person wants",
            pii=Pii.INDIRECT,
            fake=fake("between", 0, 2),
        ),
        Column("AdditionalContactInfo", "string", "More contact details, XML", nullable=True, pii=Pii.DIRECT),
        Column("Demographics", "string", "Survey, XML", nullable=True, pii=Pii.INDIRECT, fake=fake("choice", SURVEY)),
        Column("rowguid", "string", "Unique id of the row", fake=fake("guid")),
        Column("ModifiedDate", "timestamp_ntz", "When the row was last changed", fake=fake("moment", "2011-01-01")),
    ),
    fake_rows=0.1,
)
