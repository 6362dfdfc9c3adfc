/// What one sensor says, and how far that can be believed.
package struct Reading<Value: Sendable>: Sendable {
    /// The last good value; nil when there never was one or it is too old to mean anything. Never a stand-in.
    package let value: Value?
    /// How long ago ``value`` was read.
    package let age: Duration?
    /// Why the latest attempt gave no value; nil when it gave ``value``.
    package let fault: SensorFault?

    package init(value: Value?, age: Duration?, fault: SensorFault?) {
        self.value = value
        self.age = age
        self.fault = fault
    }

    /// A reading that has just succeeded.
    package init(_ value: Value) { self.init(value: value, age: .zero, fault: nil) }

    /// A sensor that this card does not have.
    package static var unsupported: Reading { Reading(value: nil, age: nil, fault: .unsupported) }

    /// The value only if the latest attempt gave it: what decisions about heat are based on.
    package var fresh: Value? { fault == nil ? value : nil }

    /// The reading of something that is part of the value.
    package func map<Part: Sendable>(_ part: (Value) -> Part?) -> Reading<Part> {
        guard let value else { return Reading<Part>(value: nil, age: nil, fault: fault) }
        guard let part = part(value) else { return Reading<Part>(value: nil, age: nil, fault: fault ?? .unsupported) }
        return Reading<Part>(value: part, age: age, fault: fault)
    }
}

extension Reading: Equatable where Value: Equatable {}
