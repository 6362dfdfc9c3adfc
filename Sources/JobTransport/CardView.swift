import JobModel
import WireJSON

/// A card as the leader sees it: a row of `maestro.api.gpus`, or the answer of `maestro.api.gpu`.
package struct CardView: Sendable {
    package let gpu: GPUID
    /// "up", "gone", or a word that says why it gets no job.
    package let state: String
    /// Why it gets no job, for a person; empty when it may.
    package let reason: String
    package let slots: Int
    package let running: [String]
    package let pci: String?
    package let model: String?
    /// 0 to 100.
    package let busyPercent: Double?
    /// Degrees Celsius.
    package let temperature: Double?
    /// Degrees Celsius from which it gets no job.
    package let temperatureLimit: Double?
    /// Watt.
    package let power: Double?
    /// Watt.
    package let powerCap: Double?
    /// Bytes.
    package let vramUsed: Double?
    /// Bytes.
    package let vramTotal: Double?
    /// Seconds since the last heartbeat.
    package let heartbeatAge: Double?
    /// Seconds for which the state has lasted.
    package let stateAge: Double?
    /// The last minutes, oldest first; empty in the table of all cards.
    package let history: [Sample]
    /// The whole row.
    package let json: JSON

    /// One reading of the card.
    package struct Sample: Sendable {
        /// Seconds ago.
        package let age: Double
        package let busyPercent: Double?
        package let temperature: Double?
        package let power: Double?

        init(_ json: JSON) {
            age = json["age"]?.doubleValue ?? 0
            busyPercent = json["busy_percent"]?.doubleValue
            temperature = json["temp_c"]?.doubleValue
            power = json["power_w"]?.doubleValue
        }
    }

    /// Nil when the row names no card.
    package init?(_ row: JSON) {
        guard let gpu = row["gpu_id"].flatMap({ GPUID($0) }) else { return nil }
        self.gpu = gpu
        state = row["state"]?.stringValue ?? ""
        reason = row["reason"]?.stringValue ?? ""
        slots = row["slots"]?.intValue.flatMap { Int(exactly: $0) } ?? 0
        running = (row["running"]?.arrayValue ?? []).compactMap(\.stringValue)
        pci = row["pci"]?.stringValue
        model = row["model"]?.stringValue
        busyPercent = row["busy_percent"]?.doubleValue
        temperature = row["temp_c"]?.doubleValue
        temperatureLimit = row["temp_limit_c"]?.doubleValue
        power = row["power_w"]?.doubleValue
        powerCap = row["power_cap_w"]?.doubleValue
        vramUsed = row["vram_used_bytes"]?.doubleValue
        vramTotal = row["vram_total_bytes"]?.doubleValue
        heartbeatAge = row["heartbeat_age"]?.doubleValue
        stateAge = row["state_age"]?.doubleValue
        history = (row["history"]?.arrayValue ?? []).map(Sample.init)
        json = row
    }
}
