"""The projects of the ledger: made, listed and found by name or id."""

from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Row, insert, or_, select
from sqlalchemy.exc import IntegrityError

from core.errors import Exists, NotFound
from core.projects import ORGANIZATION, Project, check_project_name
from storage.ledger_engine import Transactions
from storage.ledger_schema import projects


class Projects:
    """The rows of `projects`."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def create(self, name: str, now: datetime) -> Project:
        """A new project; Refused when the name breaks the rule, Exists when it is taken."""
        project = Project(id=str(uuid4()), name=check_project_name(name), organization=ORGANIZATION, created_at=now)
        try:
            async with self._transactions.writing() as connection:
                await connection.execute(
                    insert(projects).values(
                        id=project.id, name=name, organization=project.organization, created_at=now
                    )
                )  # fmt: skip
        except IntegrityError as error:
            raise Exists(f"There is already a project {name!r}") from error
        return project

    async def list(self) -> list[Project]:
        """Every project, by name."""
        async with self._transactions.reading() as connection:
            rows = await connection.execute(select(projects).order_by(projects.c.name))
            return [to_project(row) for row in rows]

    async def get(self, name_or_id: str) -> Project:
        """The project of that name or id; NotFound says how to make it."""
        query = select(projects).where(or_(projects.c.name == name_or_id, projects.c.id == name_or_id))
        async with self._transactions.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise no_such_project(name_or_id)
        return to_project(row)


def to_project(row: Row[Any]) -> Project:
    """The project of a row of `projects`."""
    return Project(id=row.id, name=row.name, organization=row.organization, created_at=row.created_at)


def no_such_project(name: str) -> NotFound:
    """The error that names the command to make the project with."""
    return NotFound(f"There is no project {name!r}; make it with: tailrace project create {name}")
