import WireJSON

/// The two parts of a day for which a pool may have limits of their own.
package enum DayPhase: String, Sendable, CaseIterable {
    case day, night

    /// Reads a message on `circadian.phase`: `{"phase":"night"}`.
    package init(parsing bytes: [UInt8]) throws(MalformedMessage) {
        let body: JSON
        do {
            body = try JSON(parsing: bytes)
        } catch {
            throw MalformedMessage("phase of the day", error.description)
        }
        guard let phase = body["phase"]?.stringValue.flatMap(DayPhase.init(rawValue:)) else {
            throw MalformedMessage("phase of the day", "phase must be day or night")
        }
        self = phase
    }
}

/// The hours that are day: "07-22" begins at 7:00 and ends at 22:00.
package struct DayWindow: Sendable, Equatable {
    /// 0 to 23.
    package let begin: Int
    /// 1 to 24; a window that ends before it begins goes over midnight.
    package let end: Int

    /// Nil unless the text is two hours, 00 to 24, with a hyphen between them.
    package init?(_ text: String) {
        let hours = text.split(separator: "-", omittingEmptySubsequences: false)
        guard hours.count == 2, let begin = Self.hour(hours[0]), let end = Self.hour(hours[1]), begin != end,
            begin < 24, end > 0
        else { return nil }
        self.begin = begin
        self.end = end
    }

    private init(begin: Int, end: Int) {
        self.begin = begin
        self.end = end
    }

    /// From 7:00 to 22:00.
    package static let standard = DayWindow(begin: 7, end: 22)

    private static func hour(_ text: Substring) -> Int? {
        guard (1...2).contains(text.utf8.count), text.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
        return Int(text).flatMap { (0...24).contains($0) ? $0 : nil }
    }

    /// - Parameter hour: of the local time, 0 to 23.
    package func phase(atHour hour: Int) -> DayPhase {
        let isDay = begin < end ? (begin..<end).contains(hour) : hour >= begin || hour < end
        return isDay ? .day : .night
    }
}

/// Which phase it is: what the window says, or what somebody asked for since the window last changed.
package struct DayCycle: Sendable, Equatable {
    package let window: DayWindow
    private var asked: Asked?

    private struct Asked: Equatable {
        let phase: DayPhase
        /// What the window said at that time.
        let during: DayPhase
    }

    package init(window: DayWindow) { self.window = window }

    /// Somebody has published a phase on `circadian.phase`; it lasts until the window changes.
    package mutating func ask(_ phase: DayPhase, atHour hour: Int) {
        asked = Asked(phase: phase, during: window.phase(atHour: hour))
    }

    package mutating func phase(atHour hour: Int) -> DayPhase {
        let scheduled = window.phase(atHour: hour)
        if let asked, asked.during == scheduled { return asked.phase }
        asked = nil
        return scheduled
    }
}
