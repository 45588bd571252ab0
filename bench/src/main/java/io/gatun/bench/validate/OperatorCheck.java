package io.gatun.bench.validate;

import io.gatun.DType;

/** A case that looks at something else of an operator than one run's results. */
sealed interface OperatorCheck extends Case permits ConcurrentCase, TimeCase {
    /** The operator with its shapes, layouts, types and values. */
    OperatorCase inner();

    @Override
    default String name() {
        return check() + " " + inner().name();
    }

    @Override
    default String operator() {
        return inner().operator();
    }

    @Override
    default String types() {
        return inner().types();
    }

    @Override
    default DType dtype() {
        return inner().dtype();
    }
}
