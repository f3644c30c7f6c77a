"""What the tables must look like.

``Flights``, ``Weather`` and ``Departures`` are checked by the validate notebook, which shows what it finds. ``TrainSet``,
``TestSet`` and ``ProductionSet`` are named in pipelines.yaml: they are checked whenever one of these tables is written.
"""

import pandas as pd
import pandera.pandas as pa

AIRPORTS = ["EWR", "JFK", "LGA"]
CARRIER = r"[A-Z0-9]{2}"
AIRPORT = r"[A-Z]{3}"
UTC = pd.DatetimeTZDtype("us", "UTC")


class Flights(pa.DataFrameModel):
    """One row a flight, as the source has it."""

    year: int = pa.Field(eq=2013)
    month: int = pa.Field(in_range={"min_value": 1, "max_value": 12})
    day: int = pa.Field(in_range={"min_value": 1, "max_value": 31})
    dep_time: float = pa.Field(in_range={"min_value": 1, "max_value": 2400}, nullable=True)
    sched_dep_time: int = pa.Field(in_range={"min_value": 0, "max_value": 2359})
    dep_delay: float = pa.Field(in_range={"min_value": -120, "max_value": 1440}, nullable=True)
    arr_time: float = pa.Field(in_range={"min_value": 1, "max_value": 2400}, nullable=True)
    sched_arr_time: int = pa.Field(in_range={"min_value": 0, "max_value": 2359})
    arr_delay: float = pa.Field(in_range={"min_value": -180, "max_value": 1440}, nullable=True)
    carrier: str = pa.Field(str_matches=rf"^{CARRIER}$")
    flight: int = pa.Field(gt=0)
    tailnum: str = pa.Field(nullable=True)
    origin: str = pa.Field(isin=AIRPORTS)
    dest: str = pa.Field(str_matches=rf"^{AIRPORT}$")
    air_time: float = pa.Field(gt=0, nullable=True)
    distance: int = pa.Field(gt=0)
    hour: int = pa.Field(in_range={"min_value": 0, "max_value": 23})
    minute: int = pa.Field(in_range={"min_value": 0, "max_value": 59})
    time_hour: UTC

    @pa.dataframe_check
    def one_row_a_flight(cls, data: pd.DataFrame) -> pd.Series:  # noqa: N805
        """A carrier uses a flight number once a day between two airports."""
        return ~data.duplicated(["month", "day", "carrier", "flight", "origin", "dest"], keep=False)

    @pa.dataframe_check
    def what_took_off_has_a_delay(cls, data: pd.DataFrame) -> pd.Series:  # noqa: N805
        """Departure time and departure delay are known together or not at all."""
        return data["dep_time"].isna() == data["dep_delay"].isna()

    @pa.dataframe_check
    def what_arrived_took_off(cls, data: pd.DataFrame) -> pd.Series:  # noqa: N805
        """No flight arrives that has not left."""
        return data["arr_delay"].isna() | data["dep_time"].notna()

    @pa.dataframe_check
    def time_hour_is_new_york_time_in_utc(cls, data: pd.DataFrame) -> pd.Series:  # noqa: N805
        """The moment of departure and the local schedule agree, daylight saving included."""
        local = pd.to_datetime(data[["year", "month", "day", "hour"]])
        return local.dt.tz_localize("America/New_York").dt.tz_convert("UTC") == data["time_hour"]

    class Config:
        """No other columns."""

        strict = True


class Weather(pa.DataFrameModel):
    """One row an airport and hour."""

    origin: str = pa.Field(isin=AIRPORTS)
    year: int = pa.Field(eq=2013)
    month: int = pa.Field(in_range={"min_value": 1, "max_value": 12})
    day: int = pa.Field(in_range={"min_value": 1, "max_value": 31})
    hour: int = pa.Field(in_range={"min_value": 0, "max_value": 23})
    temp: float = pa.Field(in_range={"min_value": -20, "max_value": 115}, nullable=True)  # °F
    dewp: float = pa.Field(in_range={"min_value": -40, "max_value": 90}, nullable=True)  # °F
    humid: float = pa.Field(in_range={"min_value": 0, "max_value": 100}, nullable=True)  # %
    wind_dir: float = pa.Field(in_range={"min_value": 0, "max_value": 360}, nullable=True)
    wind_speed: float = pa.Field(in_range={"min_value": 0, "max_value": 100}, nullable=True)  # mph
    wind_gust: float = pa.Field(in_range={"min_value": 0, "max_value": 120}, nullable=True)  # mph
    precip: float = pa.Field(in_range={"min_value": 0, "max_value": 5})  # inches an hour
    pressure: float = pa.Field(in_range={"min_value": 950, "max_value": 1060}, nullable=True)  # hPa
    visib: float = pa.Field(in_range={"min_value": 0, "max_value": 10})  # miles
    time_hour: UTC

    class Config:
        """No other columns; an airport has one row an hour."""

        strict = True
        unique = ("origin", "time_hour")


class Departures(pa.DataFrameModel):
    """What took off from an airport in the three hours before ``known_at``."""

    origin: str = pa.Field(isin=AIRPORTS)
    known_at: UTC
    departed: float = pa.Field(ge=0)
    share_late: float = pa.Field(in_range={"min_value": 0, "max_value": 1}, nullable=True)
    mean_delay: float = pa.Field(in_range={"min_value": -120, "max_value": 1440}, nullable=True)

    class Config:
        """No other columns; an airport has one row an hour."""

        strict = True
        unique = ("origin", "known_at")


class ModelInputs(pa.DataFrameModel):
    """Which flight it is, and what the model is told of it: nothing newer than three hours before departure."""

    flight_id: str = pa.Field(str_matches=rf"^2013-\d\d-\d\d {CARRIER}\d+ {AIRPORT}-{AIRPORT}$", unique=True)
    scheduled: UTC
    carrier: str = pa.Field(str_matches=rf"^{CARRIER}$")
    origin: str = pa.Field(isin=AIRPORTS)
    dest: str = pa.Field(str_matches=rf"^{AIRPORT}$")
    weekday: float = pa.Field(in_range={"min_value": 0, "max_value": 6})
    departs_minute: float = pa.Field(in_range={"min_value": 0, "max_value": 1439})
    arrives_minute: float = pa.Field(in_range={"min_value": 0, "max_value": 1439})
    distance: float = pa.Field(gt=0)
    temp: float = pa.Field(nullable=True)
    humid: float = pa.Field(nullable=True)
    wind_speed: float = pa.Field(nullable=True)
    precip: float = pa.Field(ge=0, nullable=True)
    pressure: float = pa.Field(nullable=True)
    visib: float = pa.Field(nullable=True)
    board_departed: float = pa.Field(ge=0, nullable=True)
    board_share_late: float = pa.Field(in_range={"min_value": 0, "max_value": 1}, nullable=True)
    board_mean_delay: float = pa.Field(nullable=True)

    class Config:
        """No other columns."""

        strict = True


class TrainSet(ModelInputs):
    """Flights of January to August that arrived."""

    late: int = pa.Field(isin=[0, 1])
    arr_delay: float = pa.Field(in_range={"min_value": -180, "max_value": 1440})  # minutes

    @pa.check("flight_id")
    def january_to_august(cls, flight_id: pd.Series) -> pd.Series:  # noqa: N805
        """Nothing of the test months."""
        return _month(flight_id).between(1, 8)


class TestSet(ModelInputs):
    """Flights of September and October that arrived."""

    late: int = pa.Field(isin=[0, 1])
    arr_delay: float = pa.Field(in_range={"min_value": -180, "max_value": 1440})  # minutes

    @pa.check("flight_id")
    def september_and_october(cls, flight_id: pd.Series) -> pd.Series:  # noqa: N805
        """Nothing of the training months."""
        return _month(flight_id).between(9, 10)


class ProductionSet(ModelInputs):
    """All flights of November and December; ``late`` is missing where a flight never arrived."""

    late: float = pa.Field(isin=[0, 1], nullable=True)

    @pa.check("flight_id")
    def november_and_december(cls, flight_id: pd.Series) -> pd.Series:  # noqa: N805
        """Nothing that a model was fitted to or judged by."""
        return _month(flight_id).between(11, 12)


def _month(flight_id: pd.Series) -> pd.Series:
    return flight_id.str[5:7].astype(int)
