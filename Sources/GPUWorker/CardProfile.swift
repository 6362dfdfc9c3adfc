import GPUTelemetry
import JobModel

/// How a card is to be run in a part of the day.
struct CardProfile: Sendable, Equatable {
    /// Degrees Celsius: MAX_TEMP_C of that part.
    var maxTemperature: Double
    var power: PowerSettings
}

extension WorkerSettings {
    /// What the configuration wants by day or by night: the key of that part, else the one for all of the day.
    func profile(_ phase: DayPhase) -> CardProfile {
        let isDay = phase == .day
        return CardProfile(
            maxTemperature: settings[isDay ? Keys.dayMaxTemperature : Keys.nightMaxTemperature]
                ?? settings[Keys.maxTemperature],
            power: PowerSettings(
                cap: settings[isDay ? Keys.dayPowerCap : Keys.nightPowerCap] ?? settings[Keys.powerCap],
                level: settings[Keys.performanceLevel]
            )
        )
    }
}
